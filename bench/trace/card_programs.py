"""What cards with given modules are asked for, ready to be replayed: each card through an allocator of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.allocator.compiled import as_given
from bench.allocator.limits import Limits, MachineLimits
from bench.allocator.parts import PARTS
from bench.allocator.state import State
from bench.core.outcome import Phase
from bench.trace import sections
from bench.trace.layers import Layers, layers_of, unlike_layers_of
from bench.trace.parametric import Sections, concatenated
from bench.trace.passes import NoPrediction
from bench.trace.replay import CardReplay, OfTrace, Replay, outcome_of
from bench.trace.split import BEGINNING, CardTemplates, Place, SplitTrace, Stretch
from bench.trace.template import NUM_COLUMNS, STREAM, Array


@dataclass(frozen=True)
class SplitReplay(Replay):
    """How a case ended on several cards: sums, and each card by itself.

    `failed_on` is the number of the card that was full, None where it ended before any was. A card without modules has
    no stretch of them.
    """

    failed_on: int | None
    cards: tuple[CardReplay, ...]
    stretches: tuple[Stretch | None, ...]
    attention_layers: tuple[int, ...]


class Loaded(NamedTuple):
    """A card that has modules, and its allocator; None for a card that has none."""

    stretch: Stretch | None
    state: State


class Program(NamedTuple):
    """The events of every kind of section, and which of their layers are alike."""

    events: Array
    layers: Layers


class CardPrograms:
    """The programs of cards, by their modules and what follows from a length; each is made once."""

    def __init__(self, trace: SplitTrace, tensor_bytes: Mapping[str, int]) -> None:
        self.trace = trace
        self.templates = CardTemplates(trace, tensor_bytes)
        self._sections: dict[tuple[int, int], Sections] = {}
        self._loads: dict[tuple[Place, str], Array] = {}
        self._programs: dict[tuple[Stretch, bool], Program] = {}
        self._num_streams = 1 + max(
            int(template[:, STREAM].max(initial=0))
            for each in trace.beginnings.values()
            for template in each.templates.values()
        )

    def sections_of(self, begin: Place, max_seq_len: int) -> Sections:
        """Every section of a case on a card that begins there. Raises `NoPrediction`."""
        trace = self.templates.trace_of(begin)
        key = id(trace), max_seq_len
        if key not in self._sections:
            self._sections[key] = trace.sections(max_seq_len)
        return self._sections[key]

    def loading(self, begin: Place, max_seq_len: int) -> Array:
        """What a card that begins there is asked for until it has all that follows."""
        kind = list(self.templates.trace_of(begin).templates)[self.sections_of(begin, max_seq_len).kinds[0]]
        key = (begin, kind)
        if key not in self._loads:
            events = self.templates.of(Stretch(begin, None), kind).copy()
            self.templates.put_tensors(events, begin)
            self._loads[key] = events
        return self._loads[key]

    def program(self, stretch: Stretch, is_loaded: bool) -> Program:
        """All that a card is asked for; where it `is_loaded`, what comes after that."""
        key = stretch, is_loaded
        if key not in self._programs:
            trace, depth = self.templates.trace_of(stretch.begin), self.templates.num_layers(stretch)
            nothing = np.zeros((0, NUM_COLUMNS), np.int64)
            made = [
                nothing if is_loaded and kind.startswith(Phase.LOAD) else self.templates.of(stretch, kind)
                for kind in trace.templates
            ]
            events = concatenated(made)[0]
            if not is_loaded:
                self.templates.put_tensors(events, stretch.begin)
            layers = layers_of(made, depth, trace.period) if is_loaded else unlike_layers_of(made, depth)
            self._programs[key] = Program(events, layers)
        return self._programs[key]

    def run(self, loaded: Loaded, max_seq_len: int, card: sections.Card, is_loaded: bool) -> int | None:
        """All that a card with modules is asked for, or what comes after loading; the section in which it was full."""
        assert loaded.stretch is not None
        program, plan = self.program(loaded.stretch, is_loaded), self.sections_of(loaded.stretch.begin, max_seq_len)
        rows = as_given(np.full(len(program.events), -1, np.int64))
        steps = (int(is_loaded), len(plan.kinds))
        failed, ended = sections.replay(
            program.events, program.layers, plan.kinds, plan.terms, steps, card, loaded.state, rows
        )
        if ended == sections.CROWDED:
            raise NoPrediction("too many blocks")
        return failed if ended == sections.FULL else None

    def empty_card(self, limits: Limits, num_events: int) -> State:
        """A card on which nothing was asked for yet."""
        return limits.new_state(len(PARTS), 2 * num_events + 4096, self._num_streams)

    def outcome(self, cards: Sequence[Loaded], phase: str | None, failed_on: int | None) -> SplitReplay:
        """How a case ended, by what each card has come to."""
        layers = [0 if card.stretch is None else self.templates.attention_layers(card.stretch) for card in cards]
        return outcome_of_cards(cards, layers, phase, failed_on)


def outcome_of_cards(
    cards: Sequence[Loaded], attention_layers: Sequence[int], phase: str | None, failed_on: int | None
) -> SplitReplay:
    """How a case ended on cards that have the keys and values of so many layers."""
    outcomes = [outcome_of(card.state) for card in cards]
    return SplitReplay(
        failed_in=phase,
        peak_allocated_bytes=sum(card.peak_allocated_bytes for card in outcomes),
        peak_requested_bytes=sum(card.peak_requested_bytes for card in outcomes),
        peak_reserved_bytes=sum(card.peak_reserved_bytes for card in outcomes),
        peak_held_bytes=sum(card.peak_held_bytes for card in outcomes),
        parts_at_peak=tuple(map(sum, zip(*(card.parts_at_peak for card in outcomes), strict=True))),
        failed_on=failed_on,
        cards=tuple(outcomes),
        stretches=tuple(card.stretch for card in cards),
        attention_layers=tuple(attention_layers),
    )


class CardsReplayer(OfTrace):
    """What is the same however cards are filled; `replay` is not."""

    def __init__(self, trace: SplitTrace, tensor_bytes: Mapping[str, int]) -> None:
        super().__init__(trace.first)
        self._trace = trace
        self._programs = CardPrograms(trace, tensor_bytes)
        self._needed: dict[int, int] = {}

    def needed_bytes(self, max_seq_len: int, limits: MachineLimits) -> int:
        """About what PyTorch must hold at that length, on any cards; remembered."""
        if max_seq_len not in self._needed:
            self._needed[max_seq_len] = self._find_needed(max_seq_len, limits)
        return self._needed[max_seq_len]

    def _find_needed(self, max_seq_len: int, limits: MachineLimits) -> int:
        raise NotImplementedError

    def _ended(self, cards: Sequence[Loaded], failed: Sequence[tuple[int, int]], max_seq_len: int) -> SplitReplay:
        """How a case ended; `failed` are the section in which a card was full, and its number, of each that was."""
        if not failed:
            return self._programs.outcome(cards, None, None)
        section, number = min(failed)
        phase = self._programs.sections_of(BEGINNING, max_seq_len).phases[section]
        return self._programs.outcome(cards, phase, number)
