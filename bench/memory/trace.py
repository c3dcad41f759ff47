"""What a recorder writes down while the engine runs: every allocation of a case, in sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from bench.memory.flash import Call
from bench.memory.schedule import Pass


class Op(IntEnum):
    """What happened to the allocator."""

    MALLOC = 0
    FREE = 1
    EMPTY_CACHE = 2


class Size(IntEnum):
    """What decides the size of an allocation."""

    LENGTHS = 0  # the tokens of the pass and of the case
    TENSOR = 1  # the checkpoint's tensor that is read into it
    WORKSPACE = 2  # the cuBLAS workspace of the card
    SCRATCH = 3  # the most that any module of the model wants
    FLASH_0 = 4  # the three temporaries of a flash-attn call: it, and the card's number of multiprocessors
    FLASH_1 = 5
    FLASH_2 = 6


class Event(NamedTuple):
    """`block` numbers the allocations of a recording; `layer` is the decoder layer at work, -1 before the first."""

    op: Op
    block: int = -1
    size_bytes: int = 0
    stream: int = 0
    part: int = 0
    layer: int = -1
    size: Size = Size.LENGTHS
    tensor: str | None = None
    call: Call | None = None


@dataclass
class Section:
    """The events of one pass, or of loading, or of making the cache."""

    kind: str
    q_len: int
    k_len: int
    events: list[Event] = field(default_factory=list)

    @property
    def as_pass(self) -> Pass:
        return Pass(self.kind, self.q_len, self.k_len)


@dataclass
class Recording:
    """A whole case at one length. The model had `num_layers` layers, which repeat with a period of `period`.

    `scratch` are the pairs (a, b) such that a module wants a + b · max_input_len bytes of scratch.
    """

    max_seq_len: int
    num_layers: int
    period: int
    attention: str
    window: int | None
    scratch: list[tuple[int, int]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
