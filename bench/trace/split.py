"""An engine's allocations where a model is put on several cards, module after module.

Each card is an allocator of its own, so it is enough to know what each is asked for: that follows from the module that
it begins with, and from the one with which the next card begins. What was recorded are cards that begin with each kind
of module and have all that follow. A card that ends before is asked for the same up to there, and all that the section
has taken and would give back later is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.core.outcome import Phase
from bench.trace.parametric import ParametricTrace, deepen, load_arrays, save_arrays
from bench.trace.passes import NoPrediction, Setup
from bench.trace.recording import Op, Size
from bench.trace.template import (
    BLOCK,
    DENOMINATOR,
    LAYER,
    MODULE,
    OP,
    SHOWN_PERIODS,
    SIZE_RULE,
    SIZE_TERMS,
    TENSOR,
    Array,
    spans_of_layers,
)

FIRST = "first"  # the beginning of the first card: with the model
_BETWEEN = " "


class Place(NamedTuple):
    """A module of the model: its layer, and its number in it. The number of layers stands for what follows them all."""

    layer: int
    module: int


BEGINNING = Place(-1, 0)


def beginning_of(place: Place, depth: int) -> str:
    """The name of the recording of a card that begins there, and has all that follows.

    Where it has hardly a layer as a whole, the recording has as many: the last layer is unlike others.
    """
    if place == BEGINNING:
        return FIRST
    if place.layer == depth:
        return f"after_{place.module}"
    whole = depth - place.layer - (place.module > 0)
    return f"module_{place.module}" + (f"_of_{whole}" if whole < 2 else "")


def card_name(number: int) -> str:
    """The name of the recording of a card where all have a part of every layer."""
    return f"card_{number}" if number else FIRST


@dataclass(frozen=True)
class SplitTrace:
    """What cards are asked for, by what they begin with (`beginning_of`); each has all that follows.

    The layers of each trace are those that are on the card as a whole, counted from its first one. `split_sizes` is as
    in `Recording`. Where every card has a part of every layer there is a trace for each (`card_name`), and
    `split_sizes` have, beside the `sizes`, the `divisions` that were recorded: of each part, what each card has.
    """

    beginnings: dict[str, ParametricTrace]
    split_sizes: dict[str, Any] | None = None

    @property
    def first(self) -> ParametricTrace:
        """The first card, which has the whole model."""
        return self.beginnings[FIRST]

    def with_cache(self, change: Callable[[ParametricTrace, str], ParametricTrace], cache: str) -> SplitTrace:
        """The same with another type of cache, by an engine's rules; a card without layers has none."""
        return SplitTrace(
            {n: change(trace, cache) if trace.num_layers else trace for n, trace in self.beginnings.items()},
            self.split_sizes,
        )

    def within(self, cache_size: int | None, max_seq_len: int | None = None, turns: int = 1) -> SplitTrace:
        """As `ParametricTrace.within`."""
        there = self.beginnings.items()
        return SplitTrace({n: trace.within(cache_size, max_seq_len, turns) for n, trace in there}, self.split_sizes)

    def save(self, path: Path) -> None:
        """Writes the trace; it appears whole or not at all."""
        templates = {
            f"{name}{_BETWEEN}{kind}": template
            for name, trace in self.beginnings.items()
            for kind, template in trace.templates.items()
        }
        about = {name: trace.about() for name, trace in self.beginnings.items()}
        save_arrays(path, {"beginnings": about, "split_sizes": self.split_sizes}, templates)

    @staticmethod
    def load(path: Path, make_setup: Callable[..., Setup]) -> SplitTrace:
        """As `ParametricTrace.load`."""
        return SplitTrace.of(*load_arrays(path), make_setup)

    @staticmethod
    def of(about: dict[str, Any], templates: dict[str, Array], make_setup: Callable[..., Setup]) -> SplitTrace:
        """As `ParametricTrace.of`."""
        traces = {}
        for name, each in about["beginnings"].items():
            own = {key.partition(_BETWEEN)[2]: t for key, t in templates.items() if key.startswith(name + _BETWEEN)}
            traces[name] = ParametricTrace.of(each, own, make_setup)
        return SplitTrace(traces, about["split_sizes"])


class Stretch(NamedTuple):
    """The modules of a card: from one to before another; None for the end of the model."""

    begin: Place
    end: Place | None


class CardTemplates:
    """The templates of cards, for any stretch of a model of `depth` layers, with the sizes of its tensors."""

    def __init__(self, trace: SplitTrace, tensor_bytes: Mapping[str, int]) -> None:
        self._trace = trace
        self.depth = trace.first.depth
        self._deepened: dict[tuple[str, str], Array] = {}
        self._sizes = {name: self._tensor_sizes(each, tensor_bytes) for name, each in trace.beginnings.items()}

    def _tensor_sizes(self, trace: ParametricTrace, tensor_bytes: Mapping[str, int]) -> Array:
        """By tensor and layer of the model; -1 where the checkpoint has none."""
        layers = range(self.depth + 1)
        rows = [[tensor_bytes.get(name.format(layer), -1) for layer in layers] for name in trace.tensors]
        return np.array(rows, np.int64).reshape(-1, self.depth + 1)

    def trace_of(self, begin: Place) -> ParametricTrace:
        """What was recorded of a card that begins there. Raises `NoPrediction`."""
        name = beginning_of(begin, self.depth)
        if name not in self._trace.beginnings:
            raise NoPrediction("no recording shows a card that begins so near the model's end")
        return self._trace.beginnings[name]

    def first_layer(self, begin: Place) -> int:
        """The first layer that is as a whole on a card that begins there."""
        return 0 if begin == BEGINNING else begin.layer + (begin.module > 0 and begin.layer < self.depth)

    def num_layers(self, stretch: Stretch) -> int:
        """How many layers are on the card as a whole."""
        end = self.depth if stretch.end is None else stretch.end.layer
        return max(0, end - self.first_layer(stretch.begin))

    def attention_layers(self, stretch: Stretch) -> int:
        """How many layers have their keys and values on the card: they are made with the first module of each."""
        ends_amid = stretch.end is not None and stretch.end.layer < self.depth and stretch.end.module > 0
        return self.num_layers(stretch) + ends_amid

    def of(self, stretch: Stretch, kind: str) -> Array:
        """What a card with these modules is asked for in one kind of section; without the sizes of tensors."""
        trace, depth = self.trace_of(stretch.begin), self.num_layers(stretch)
        template = trace.templates[kind]
        if kind == Phase.CACHE and len(template):
            return _cache(template, trace.num_layers, self.attention_layers(stretch), depth)
        if kind.startswith(Phase.CACHE):
            return _beside_the_cache(template, self.attention_layers(stretch), depth)
        if stretch.end is None or stretch.end.layer == self.depth:
            if depth != trace.num_layers:
                template = deepen(template, trace.num_layers, trace.period, depth)
        elif trace.num_layers < SHOWN_PERIODS:
            raise NoPrediction("no recording shows a card with a part of the last layer alone")
        else:  # the last layer is another's, and so is the one before
            template = self._deep(beginning_of(stretch.begin, self.depth), kind)
        return template if stretch.end is None else _ended(template, depth, stretch.end.module)

    def _deep(self, beginning: str, kind: str) -> Array:
        """What a card is asked for that has more layers than any that ends amid the model."""
        if (beginning, kind) not in self._deepened:
            trace = self._trace.beginnings[beginning]
            depth = max(self.depth + 2, trace.num_layers)
            self._deepened[beginning, kind] = deepen(trace.templates[kind], trace.num_layers, trace.period, depth)
        return self._deepened[beginning, kind]

    def put_tensors(self, events: Array, begin: Place) -> None:
        """Writes the sizes of tensors into the events of a card. Raises `NoPrediction` where there is none."""
        loads = events[:, SIZE_RULE] == Size.TENSOR
        sizes = self._sizes[beginning_of(begin, self.depth)]
        layers = np.clip(events[loads, LAYER] + self.first_layer(begin), 0, self.depth)
        wanted = sizes[events[loads, TENSOR], layers]
        if np.any(wanted < 0):
            raise NoPrediction("the checkpoint lacks a tensor that the engine loads")
        events[loads, SIZE_TERMS] = wanted * DENOMINATOR


def place_at(events: Array, index: int, templates: CardTemplates, begin: Place) -> Place:
    """The module that an event of a card belongs to."""
    layer = int(events[index, LAYER]) + templates.first_layer(begin)
    return Place(layer, int(events[index, MODULE]))


def _cache(template: Array, num_layers: int, attention_layers: int, depth: int) -> Array:
    """The making of a cache of so many layers, of which `depth` are on the card as a whole.

    The recorded ones are all alike, and nothing is given back meanwhile; at the end there is what is for all of them.
    """
    (first, last), (rest, _) = (spans_of_layers(template, num_layers)[number] for number in (1, num_layers + 1))
    if np.any(template[:, OP] != Op.MALLOC):
        raise NoPrediction("the making of a cache gives something back")
    parts = [template[first:last]] * attention_layers + ([template[rest:]] if attention_layers else [template[:0]])
    cache = np.concatenate(parts)
    cache[:, LAYER] = np.repeat(np.minimum(np.arange(len(parts)), depth), list(map(len, parts)))
    cache[:, BLOCK] = np.arange(len(cache))
    return cache


def _beside_the_cache(template: Array, attention_layers: int, depth: int) -> Array:
    """What is made once for the cache of all layers, on a card that has keys and values of any, and stays."""
    if np.any(template[:, OP] != Op.MALLOC):
        raise NoPrediction("what is made beside a cache gives something back")
    made = template.copy() if attention_layers else template[:0]
    made[:, LAYER] = depth
    return made


def _ended(template: Array, layer: int, module: int) -> Array:
    """What happens before a module; then all is given back that would be later."""
    beyond = (template[:, LAYER] > layer) | ((template[:, LAYER] == layer) & (template[:, MODULE] >= module))
    count = int(np.argmax(beyond)) if beyond.any() else len(template)
    rest = template[count:]
    given_back = rest[(rest[:, OP] == Op.FREE) & (rest[:, BLOCK] < count)].copy()
    given_back[:, LAYER] = layer
    return np.concatenate([template[:count], given_back])
