"""The messages of a child, merged into one record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bench.core.messages import (
    CardFacts,
    Entered,
    Failure,
    Memory,
    Message,
    PhaseDone,
    Result,
    Started,
    Timings,
    Versions,
)
from bench.core.outcome import Phase

T = TypeVar("T", CardFacts, Timings)


@dataclass(frozen=True)
class CardTold:
    """What was told of one card; None, and facts without values, where a case did not come so far."""

    memory: Memory | None
    facts: CardFacts
    parts: dict[str, int | None] | None = None
    modules: list[str] | None = None
    layers: int | None = None
    ran_out: bool = False

    @staticmethod
    def nothing() -> CardTold:
        """Of a card of which nothing was told."""
        return CardTold(None, CardFacts())


@dataclass
class Told:
    """The last value of everything that messages carry; None where no message had it.

    `phase` is the last that was entered, and `done` with a result; `turn` the one in which that was.
    """

    versions: Versions | None = None
    attention: str | None = None
    notes: list[str] | None = None
    facts: CardFacts = field(default_factory=CardFacts)
    others: list[CardFacts] = field(default_factory=list)
    phase: Phase = Phase.LOAD
    turn: int = 1
    phases: list[PhaseDone] = field(default_factory=list)
    result: Result | None = None
    failure: Failure | None = None

    @staticmethod
    def by(messages: Iterable[Message]) -> Told:
        """What `messages`, in the order in which they came, tell."""
        told = Told()
        for message in messages:
            match message:
                case Versions():
                    told.versions = message
                case Entered():
                    told.phase, told.turn = message.phase, message.turn
                case Started():
                    told.attention = message.attention
                    told.others = message.others
                    told._add(message.notes, message.facts)
                case PhaseDone():
                    told.phases.append(message)
                case Result():
                    told.result = message
                    told._add(message.notes, message.facts)
                case Failure():
                    told.failure = message
        if told.result is not None:
            told.phase = Phase.DONE
        return told

    @property
    def memory(self) -> Memory | None:
        """What the card held at the end: of the failure, or else of the last phase that was finished."""
        if self.failure is not None and self.failure.memory is not None:
            return self.failure.memory
        return self.phases[-1].memory if self.phases else None

    def cards(self) -> list[CardTold]:
        """What was told of each card, the first among them."""
        last = self.phases[-1] if self.phases else None
        failed = self.failure if self.failure is not None and self.failure.memory is not None else None
        others = failed.others if failed else last.others if last else []
        memories = [self.memory, *others]
        if self.result is not None and self.result.cards:
            return [
                CardTold(memory, card.facts, card.parts, card.modules, card.layers)
                for memory, card in zip(memories, self.result.cards, strict=True)
            ]
        facts = [self.facts, *self.others]
        ran_out = self.failure.card if self.failure else None
        count = max(len(memories), len(facts))
        memories += [None] * (count - len(memories))
        facts += [CardFacts()] * (count - len(facts))
        parts = self.result.parts if self.result else None
        return [
            CardTold(memory, of_card, parts, ran_out=number == ran_out)
            for number, (memory, of_card) in enumerate(zip(memories, facts, strict=True))
        ]

    @property
    def timings(self) -> Timings:
        """Those of all phases."""
        timings = Timings()
        for done in self.phases:
            timings = _updated(timings, done.timings)
        return timings

    def documents(self) -> list[dict[str, Any]]:
        """The phases that were finished, as the row keeps them: with the timings that they have."""
        return [
            {
                "phase": done.phase,
                **({} if done.turn == 1 else {"turn": done.turn}),
                "seconds": done.seconds,
                "memory": dataclasses.asdict(done.memory),
                **{name: value for name, value in vars(done.timings).items() if value is not None},
            }
            for done in self.phases
        ]

    def _add(self, notes: list[str], facts: CardFacts) -> None:
        self.notes = notes
        self.facts = _updated(self.facts, facts)


def _updated(known: T, news: T) -> T:
    """`known`, with the fields of `news` that are not None in their place."""
    return dataclasses.replace(known, **{name: value for name, value in vars(news).items() if value is not None})
