"""What a recorder writes down while the engine runs: every allocation of a case, in sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from bench.allocator.flash import Call

RESERVE_BYTES = 1 << 20  # that a recording on several cards keeps free: it tells them from all else that is kept


class Op(IntEnum):
    """What happened to the allocator."""

    MALLOC = 0
    FREE = 1
    EMPTY_CACHE = 2
    BESIDE = 3  # the driver is asked for a buffer that others keep for the life of the process
    LEAVE = 4  # a block is left for the next section to free
    TAKE = 5  # the one that the section before has left
    # Of a loader that tries each part of a model as it loads it (bench.allocator.headroom)
    KEEP_FREE = 6  # so many bytes of the card, from now on
    WATCH = 7  # what is needed beside what is there counts from here
    REQUIRE = 8  # what was needed at most, and so many bytes
    KEEP_NOTHING_FREE = 9


class Size(IntEnum):
    """What decides the size of an allocation."""

    LENGTHS = 0  # the tokens of the pass and of the case
    TENSOR = 1  # the checkpoint's tensor that is read into it
    WORKSPACE = 2  # the cuBLAS workspace of the card
    SCRATCH = 3  # the most that any module of the model wants
    SORT = 4  # the numbers that are sorted, and the generation of the card
    RESERVE = 5  # what is kept free on each of several cards
    DRAFT_SCRATCH = 6  # SCRATCH of a draft model
    FLASH_0 = 7  # the three temporaries of a flash-attn call: it, and the card's number of multiprocessors
    FLASH_1 = 8
    FLASH_2 = 9


class Event(NamedTuple):
    """`block` numbers the allocations of a card; `layer` is the decoder layer at work, -1 before the first.

    Where `size` is SORT, `size_bytes` are the numbers that are sorted. `module` counts the modules of a layer, and
    those after the last one. Of BESIDE, `part` is the number of the buffer; of LEAVE and TAKE, that of the place where
    a block is left. Of a `tensor` it may be a share: the first
    number of `share` over the second.
    """

    op: Op
    block: int = -1
    size_bytes: int = 0
    stream: int = 0
    part: int = 0
    layer: int = -1
    size: Size = Size.LENGTHS
    tensor: str | None = None
    call: Call | None = None
    module: int = 0
    share: tuple[int, int] = (1, 1)


@dataclass
class Section:
    """The events of one pass, or of loading, or of making the cache: then both lengths are 0."""

    q_len: int = 0
    k_len: int = 0
    events: list[Event] = field(default_factory=list)


class DraftDepth(NamedTuple):
    """How a draft model was recorded: with `num_layers`, which repeat every `period`, of the `depth` that it has."""

    num_layers: int
    period: int
    depth: int


@dataclass
class Recording:
    """A case at one length on one card, as far as it was recorded.

    The card had `num_layers` whole layers, repeating every `period`; `first_layer` is the model's number of the first.
    Events count layers from that one.

    Its sections are those of `schedule` and then the `extra_passes`; or the first of them, up to some pass.
    `scratch` are the pairs (a, b) such that a module wants a + b · max_input_len bytes of scratch. `split_sizes` is
    what the engine counts when it is told how much goes on which card, in plain values. Where every layer is divided
    among cards, `divided` is how: of each part of the layers, what each card has of it. What is said of layers and of
    scratch is said of a draft model by `draft`, if there is one. `cache_size` is that of the case, None where its cache
    is as large as the length asks for.
    """

    max_seq_len: int
    num_layers: int
    period: int
    scratch: list[tuple[int, int]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    first_layer: int = 0
    split_sizes: dict[str, Any] | None = None
    is_whole: bool = True
    divided: tuple[tuple[int, ...], ...] = ()
    draft: DraftDepth | None = None
    draft_scratch: list[tuple[int, int]] = field(default_factory=list)
    cache_size: int | None = None
