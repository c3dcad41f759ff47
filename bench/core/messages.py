"""What a child tells its parent, a class for each kind of message.

What is said of a card is said of the first; where a case has several, `others` says the same of those that follow it.

Sizes are integer bytes, times float seconds, None is unknown. A message is one line of JSON on the pipe (`core.wire`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from bench.core import wire
from bench.core.outcome import Phase


@dataclass(frozen=True)
class Memory:
    """A card's memory now and at its highest since the case began."""

    allocated_bytes: int
    reserved_bytes: int
    device_bytes: int | None
    peak_allocated_bytes: int
    peak_requested_bytes: int
    peak_reserved_bytes: int
    peak_device_bytes: int | None


@dataclass(frozen=True)
class CardFacts:
    """What a child has found out about its card; fields are None until a case has come so far.

    `device_total_bytes` is as CUDA reports it; `held_bytes` is what the ballast process holds to make the card smaller;
    `properties` go into the row's telemetry as they are.
    """

    context_bytes: int | None = None
    cuda_version: str | None = None
    device_total_bytes: int | None = None
    held_bytes: int | None = None
    properties: dict[str, Any] | None = None


@dataclass(frozen=True)
class Timings:
    """The samples of a phase, in seconds, and to how many tokens each is; None is of another phase.

    A card on which time means nothing has no samples. `decode_full_s` is at the end of the context, `decode_s` near
    its start.
    """

    load_s: float | None = None
    prefill_s: list[float] | None = None
    prefill_tokens: int | None = None
    decode_full_s: list[float] | None = None
    decode_s: list[float] | None = None
    decode_tokens: int | None = None


@dataclass(frozen=True)
class Versions:
    """What the child has imported; the first message of a case."""

    torch_version: str
    engine_version: str


@dataclass(frozen=True)
class Entered:
    """A phase begins, in one of several turns."""

    phase: Phase
    turn: int = 1


@dataclass(frozen=True)
class Started:
    """The engine has taken the model's configuration: its attention, and what was assumed or stood in the way."""

    attention: str
    notes: list[str]
    facts: CardFacts
    others: list[CardFacts] = field(default_factory=list)


@dataclass(frozen=True)
class PhaseProgress:
    """How far a phase is: `done` of `total` `units` (modules or tokens). Shown while it lasts, and never kept."""

    phase: Phase
    done: int
    total: int
    units: str

    def __str__(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.units}"


@dataclass(frozen=True)
class PhaseDone:
    """A phase is over: how long it took, and the memory after it."""

    phase: Phase
    seconds: float
    memory: Memory
    timings: Timings = field(default_factory=Timings)
    others: list[Memory] = field(default_factory=list)
    turn: int = 1


@dataclass(frozen=True)
class CardResult:
    """A card when a case went through: the bytes of each part (a column of the row) at its peak, final figures,
    which of the model's modules the engine has put there, and of how many layers the keys and values.
    """

    parts: dict[str, int | None]
    facts: CardFacts
    modules: list[str]
    layers: int


@dataclass(frozen=True)
class Result:
    """A case went through: the bytes of each part (a column of the row) at the peak, and final figures.

    Of several cards, `cards` says it of each, the first among them. The last two are of host memory: what a generator
    reserves for its buffers, and all that the child held at its highest.
    """

    parts: dict[str, int | None]
    notes: list[str]
    facts: CardFacts
    cards: list[CardResult] = field(default_factory=list)
    host_buffers_bytes: int | None = None
    peak_host_bytes: int | None = None
    generated_tokens: int | None = None
    drafted_tokens: int | None = None


@dataclass(frozen=True)
class Failure:
    """What was asked for cannot be done: the class and the text of the error, and what the card held, if it says.

    `card` is the number of the one that ran out of memory, of several.
    """

    type: str
    message: str
    memory: Memory | None = None
    others: list[Memory] = field(default_factory=list)
    card: int | None = None


@dataclass(frozen=True)
class Recorded:
    """One of the recordings that were asked for is done with, whether or not there is a file at `path` now."""

    path: Path


Message = Versions | Entered | Started | PhaseProgress | PhaseDone | Result | Failure | Recorded
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}

M = TypeVar("M")


def read_message(line: bytes) -> Message:
    """Raises ValueError for a line that is no message: torn, or of a kind or with fields that a newer worker has."""
    return wire.decode(line, _KINDS)


def last(messages: Iterable[Message], kind: type[M]) -> M | None:
    """The last message of a kind; None where there is none."""
    found = None
    for message in messages:
        if isinstance(message, kind):
            found = message
    return found
