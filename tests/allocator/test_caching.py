"""The model of PyTorch's caching allocator: its invariants over random histories, and its rules one by one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from bench.allocator import caching as rules
from bench.allocator.caching import OutOfMemory
from bench.allocator.sizes import round_size, segment_size

KIB, MIB = 1 << 10, 1 << 20
NUM_PARTS = 3

_BOUNDARIES = [512, MIB, 2 * MIB, 10 * MIB, 12 * MIB, 20 * MIB]
_sizes = st.one_of(
    st.integers(1, 4 * KIB),
    st.integers(1, 2 * MIB),
    st.integers(1, 40 * MIB),
    st.builds(lambda size, off: size + off, st.sampled_from(_BOUNDARIES), st.integers(-1, 513)),
)


class Block:
    """A block as it is at the moment of each look."""

    def __init__(self, allocator: rules.CachingAllocator, row: int) -> None:
        self._allocator, self.row = allocator, row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._allocator.block(self.row), name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and other.row == self.row

    def __hash__(self) -> int:
        return self.row

    @property
    def prev(self) -> Block | None:
        row = self._allocator.block(self.row).prev
        return None if row is None else Block(self._allocator, row)

    @property
    def next(self) -> Block | None:
        row = self._allocator.block(self.row).next
        return None if row is None else Block(self._allocator, row)


class CachingAllocator:
    """The allocator under test, with blocks that can be asked."""

    def __init__(self, limit_bytes: int, num_parts: int = 1) -> None:
        self._allocator = rules.CachingAllocator(limit_bytes, num_parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._allocator, name)

    def malloc(self, size_bytes: int, stream: int = 0, part: int = 0) -> Block:
        return Block(self._allocator, self._allocator.malloc(size_bytes, stream, part))

    def free(self, block: Block) -> None:
        self._allocator.free(block.row)

    def free_blocks(self) -> list[Block]:
        return [Block(self._allocator, block.row) for block in self._allocator.free_blocks()]


def _segments(allocator: CachingAllocator, in_use: list[Block]) -> list[list[Block]]:
    """Every segment as the chain of its blocks, found by walking from all blocks that are known."""
    chains: dict[int, list[Block]] = {}
    for block in [*in_use, *allocator.free_blocks()]:
        while block.prev is not None:
            assert block.prev.next == block
            block = block.prev
        chain = [block]
        while chain[-1].next is not None:
            assert chain[-1].next.prev == chain[-1]
            chain.append(chain[-1].next)
        chains[block.row] = chain
    return list(chains.values())


class AllocatorMachine(RuleBasedStateMachine):
    """Random histories; every rule checks what it did, every invariant the whole state."""

    blocks = Bundle("blocks")

    @initialize(limit_bytes=st.one_of(st.integers(MIB, 8 * MIB), st.integers(20 * MIB, 160 * MIB)))
    def start(self, limit_bytes: int) -> None:
        self.allocator = CachingAllocator(limit_bytes, NUM_PARTS)
        self.in_use: list[Block] = []
        self.requests: dict[int, tuple[int, int]] = {}
        self.peaks = [0, 0, 0]

    @rule(target=blocks, size=_sizes, stream=st.integers(0, 2), part=st.integers(0, NUM_PARTS - 1))
    def malloc(self, size: int, stream: int, part: int) -> object:
        rounded = round_size(size)
        small = rounded <= MIB
        fitting = sorted(
            (block.size_bytes, block.address)
            for block in self.allocator.free_blocks()
            if (block.stream, block.small) == (stream, small) and block.size_bytes >= rounded
        )
        pinned_bytes = sum(
            sum(block.size_bytes for block in chain)
            for chain in _segments(self.allocator, self.in_use)
            if any(block.in_use for block in chain)
        )
        fits_somehow = bool(fitting) or pinned_bytes + segment_size(rounded) <= self.allocator.limit_bytes
        cached = {block.address for block in self.allocator.free_blocks()}
        if not fits_somehow:
            with pytest.raises(OutOfMemory) as caught:
                self.allocator.malloc(size, stream, part)
            assert caught.value.requested_bytes == size
            assert caught.value.free_bytes == self.allocator.limit_bytes - pinned_bytes
            return multiple()
        block = self.allocator.malloc(size, stream, part)
        assert (block.stream, block.small, block.in_use) == (stream, small, True)
        assert block.size_bytes >= rounded
        if fitting:
            assert block.address == fitting[0][1]
        else:
            assert block.address not in cached
        self.in_use.append(block)
        self.requests[block.row] = (size, part)
        return block

    @rule(block=consumes(blocks))
    def free(self, block: Block) -> None:
        self.allocator.free(block)
        self.in_use.remove(block)

    @rule()
    def empty_cache(self) -> None:
        self.allocator.empty_cache()
        for chain in _segments(self.allocator, self.in_use):
            assert any(block.in_use for block in chain)

    @rule()
    def reset_peak(self) -> None:
        self.allocator.reset_peak()
        self.peaks = [0, 0, 0]

    @invariant()
    def counters_agree_with_the_blocks(self) -> None:
        stats = self.allocator.stats
        assert stats.allocated_bytes == sum(block.size_bytes for block in self.in_use)
        assert stats.requested_bytes == sum(self.requests[block.row][0] for block in self.in_use)
        assert stats.requested_bytes <= stats.allocated_bytes <= stats.reserved_bytes <= self.allocator.limit_bytes
        chains = _segments(self.allocator, self.in_use)
        assert stats.num_segments == len(chains)
        assert stats.reserved_bytes == sum(block.size_bytes for chain in chains for block in chain)

    @invariant()
    def parts_add_up_to_what_is_allocated(self) -> None:
        for part in range(NUM_PARTS):
            owned = [block for block in self.in_use if self.requests[block.row][1] == part]
            assert self.allocator.parts[part] == sum(block.size_bytes for block in owned)
        assert sum(self.allocator.parts_at_peak) == self.allocator.stats.peak_allocated_bytes

    @invariant()
    def peaks_are_the_maxima_since_the_last_reset(self) -> None:
        stats = self.allocator.stats
        now = [stats.allocated_bytes, stats.requested_bytes, stats.reserved_bytes]
        self.peaks = [max(pair) for pair in zip(self.peaks, now, strict=True)]
        assert [stats.peak_allocated_bytes, stats.peak_requested_bytes, stats.peak_reserved_bytes] == self.peaks

    @invariant()
    def segments_are_tiled_without_gaps_or_overlaps(self) -> None:
        spans = []
        for chain in _segments(self.allocator, self.in_use):
            for before, after in pairwise(chain):
                assert after.address == before.address + before.size_bytes
            assert all(block.size_bytes % 512 == 0 and block.size_bytes > 0 for block in chain)
            size = sum(block.size_bytes for block in chain)
            assert size == (2 * MIB if chain[0].small else max(10 * MIB, size // (2 * MIB) * 2 * MIB))
            spans.append((chain[0].address, chain[0].address + size))
        spans.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(spans))

    @invariant()
    def segments_keep_to_one_stream_and_one_pool(self) -> None:
        for chain in _segments(self.allocator, self.in_use):
            assert len({(block.stream, block.small) for block in chain}) == 1

    @invariant()
    def free_neighbours_are_merged(self) -> None:
        for chain in _segments(self.allocator, self.in_use):
            assert all(before.in_use or after.in_use for before, after in pairwise(chain))

    @invariant()
    def the_pools_hold_exactly_the_free_blocks(self) -> None:
        pooled = [block.row for block in self.allocator.free_blocks()]
        walked = [block for chain in _segments(self.allocator, self.in_use) for block in chain]
        assert len(pooled) == len(set(pooled))
        assert set(pooled) == {block.row for block in walked if not block.in_use}
        assert {block.row for block in self.in_use} == {block.row for block in walked if block.in_use}

    def teardown(self) -> None:
        for block in self.in_use:
            self.allocator.free(block)
        self.allocator.empty_cache()
        stats = self.allocator.stats
        assert (stats.allocated_bytes, stats.requested_bytes, stats.reserved_bytes, stats.num_segments) == (0, 0, 0, 0)
        assert self.allocator.parts == [0] * NUM_PARTS
        assert self.allocator.free_blocks() == []


TestAllocatorMachine = AllocatorMachine.TestCase
TestAllocatorMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture
def roomy() -> CachingAllocator:
    """An allocator that no test here fills."""
    return CachingAllocator(1 << 40)


@given(size=st.integers(1, 1 << 40))
def test_blocks_are_the_next_multiple_of_512(size: int) -> None:
    rounded = round_size(size)
    assert rounded % 512 == 0
    assert size <= rounded < size + 512


@pytest.mark.parametrize(
    ("requested", "segment"),
    [
        (1, 2 * MIB),
        (MIB - 1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB - 511, 10 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (12 * MIB, 12 * MIB),
        (25 * MIB, 26 * MIB),
    ],
)
def test_the_request_decides_the_segment(roomy: CachingAllocator, requested: int, segment: int) -> None:
    roomy.malloc(requested)
    assert segment_size(round_size(requested)) == segment
    assert roomy.stats.reserved_bytes == segment
    assert roomy.stats.num_segments == 1


def test_two_blocks_of_1_mib_share_a_small_segment_and_a_third_needs_another(roomy: CachingAllocator) -> None:
    first, second, third = (roomy.malloc(MIB) for _ in range(3))
    assert second.address == first.address + MIB
    assert third.prev is None
    assert roomy.stats.reserved_bytes == 4 * MIB


def test_medium_blocks_share_a_segment_of_20_mib(roomy: CachingAllocator) -> None:
    for _ in range(4):
        roomy.malloc(5 * MIB)
    assert roomy.stats.num_segments == 1
    roomy.malloc(5 * MIB)
    assert roomy.stats.num_segments == 2


def test_small_requests_never_use_the_large_pool(roomy: CachingAllocator) -> None:
    roomy.free(roomy.malloc(8 * MIB))
    roomy.malloc(MIB)
    assert roomy.stats.reserved_bytes == 22 * MIB


def test_large_requests_never_use_the_small_pool(roomy: CachingAllocator) -> None:
    roomy.free(roomy.malloc(512))
    roomy.malloc(MIB + 1)
    assert roomy.stats.reserved_bytes == 22 * MIB


def test_the_smallest_free_block_that_fits_is_taken(roomy: CachingAllocator) -> None:
    sizes = [8 * KIB, 2 * KIB, 4 * KIB]
    blocks = []
    for size in sizes:
        blocks.append(roomy.malloc(size))
        roomy.malloc(512)
    for block in blocks:
        roomy.free(block)
    assert roomy.malloc(3 * KIB).address == blocks[2].address


def test_of_equal_blocks_the_lowest_address_is_taken(roomy: CachingAllocator) -> None:
    low, _, high, _ = (roomy.malloc(size) for size in (2 * KIB, 512, 2 * KIB, 512))
    roomy.free(high)
    roomy.free(low)
    assert roomy.malloc(2 * KIB).address == low.address


def test_a_small_remainder_of_512_is_split_off(roomy: CachingAllocator) -> None:
    block, _ = roomy.malloc(KIB), roomy.malloc(512)
    roomy.free(block)
    again = roomy.malloc(512)
    assert (again.address, again.size_bytes) == (block.address, 512)
    assert roomy.malloc(512).address == block.address + 512


def test_an_exact_fit_leaves_no_remainder(roomy: CachingAllocator) -> None:
    block, guard = roomy.malloc(KIB), roomy.malloc(512)
    roomy.free(block)
    assert roomy.malloc(KIB).next == guard


def test_a_large_remainder_of_1_mib_stays_with_its_block(roomy: CachingAllocator) -> None:
    roomy.free(roomy.malloc(14 * MIB))
    block = roomy.malloc(13 * MIB)
    assert block.size_bytes == 14 * MIB
    assert block.prev is block.next is None
    assert roomy.stats.allocated_bytes == 14 * MIB
    assert roomy.stats.requested_bytes == 13 * MIB


def test_a_large_remainder_above_1_mib_is_split_off(roomy: CachingAllocator) -> None:
    roomy.free(roomy.malloc(14 * MIB))
    block = roomy.malloc(13 * MIB - 512)
    assert block.size_bytes == 13 * MIB - 512
    assert block.next is not None
    assert block.next.size_bytes == MIB + 512


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_freed_neighbours_merge_whatever_the_order(roomy: CachingAllocator, order: tuple[int, ...]) -> None:
    blocks = [roomy.malloc(KIB) for _ in range(3)]
    start = blocks[0].address
    guard = roomy.malloc(512)
    for index in order:
        roomy.free(blocks[index])
    merged = guard.prev
    assert merged is not None
    assert (merged.address, merged.size_bytes, merged.prev) == (start, 3 * KIB, None)
    assert roomy.malloc(3 * KIB).address == start


def test_free_blocks_do_not_merge_over_one_in_use(roomy: CachingAllocator) -> None:
    before, between, after = (roomy.malloc(KIB) for _ in range(3))
    roomy.free(before)
    roomy.free(after)
    assert between.prev is not None
    assert between.prev.size_bytes == KIB
    assert sorted(block.size_bytes for block in roomy.free_blocks()) == [KIB, 2 * MIB - 2 * KIB]


def test_a_stream_does_not_take_the_free_blocks_of_another(roomy: CachingAllocator) -> None:
    block = roomy.malloc(20 * MIB, stream=1)
    roomy.free(block)
    assert roomy.malloc(20 * MIB, stream=2).address != block.address
    assert roomy.stats.reserved_bytes == 40 * MIB
    assert roomy.malloc(20 * MIB, stream=1).address == block.address


def test_cached_memory_is_reused_and_stays_reserved(roomy: CachingAllocator) -> None:
    block = roomy.malloc(30 * MIB)
    roomy.free(block)
    assert (roomy.stats.allocated_bytes, roomy.stats.reserved_bytes) == (0, 30 * MIB)
    assert roomy.malloc(30 * MIB).address == block.address
    assert roomy.stats.num_segments == 1


def test_empty_cache_keeps_segments_with_a_block_in_use(roomy: CachingAllocator) -> None:
    roomy.free(roomy.malloc(30 * MIB))
    kept, freed = roomy.malloc(5 * MIB), roomy.malloc(5 * MIB)
    roomy.free(freed)
    roomy.empty_cache()
    assert roomy.stats.reserved_bytes == 30 * MIB
    roomy.free(kept)
    roomy.empty_cache()
    assert roomy.stats.reserved_bytes == 0


def test_a_full_card_releases_its_cache_before_it_gives_up() -> None:
    allocator = CachingAllocator(20 * MIB)
    for stream in (0, 1):
        allocator.free(allocator.malloc(10 * MIB, stream))
    allocator.malloc(20 * MIB)
    assert allocator.stats.reserved_bytes == 20 * MIB
    assert allocator.stats.peak_reserved_bytes == 20 * MIB
    assert (allocator.stats.num_alloc_retries, allocator.stats.num_ooms) == (1, 0)


def test_a_request_that_fits_the_card_exactly_succeeds_and_one_byte_more_does_not() -> None:
    CachingAllocator(20 * MIB).malloc(20 * MIB)
    with pytest.raises(OutOfMemory):
        CachingAllocator(20 * MIB - 1).malloc(20 * MIB)
    with pytest.raises(OutOfMemory):
        CachingAllocator(20 * MIB).malloc(20 * MIB + 1)


def test_out_of_memory_says_what_was_asked_and_what_was_left() -> None:
    allocator = CachingAllocator(25 * MIB)
    kept = allocator.malloc(12 * MIB)
    allocator.free(allocator.malloc(10 * MIB))
    with pytest.raises(OutOfMemory) as caught:
        allocator.malloc(15 * MIB + 1)
    assert (caught.value.requested_bytes, caught.value.free_bytes) == (15 * MIB + 1, 13 * MIB)
    assert (allocator.stats.num_alloc_retries, allocator.stats.num_ooms) == (1, 1)
    assert allocator.stats.allocated_bytes == allocator.stats.reserved_bytes == kept.size_bytes


def test_a_small_block_can_run_out_though_its_bytes_are_free() -> None:
    allocator = CachingAllocator(11 * MIB)
    allocator.malloc(10 * MIB)
    with pytest.raises(OutOfMemory) as caught:
        allocator.malloc(1)
    assert caught.value.free_bytes == MIB


def test_an_allocator_goes_on_after_out_of_memory() -> None:
    allocator = CachingAllocator(10 * MIB)
    block = allocator.malloc(10 * MIB)
    with pytest.raises(OutOfMemory):
        allocator.malloc(10 * MIB)
    allocator.free(block)
    assert allocator.malloc(10 * MIB).address == block.address


def test_requested_bytes_are_what_the_caller_asked_and_allocated_bytes_what_it_got(roomy: CachingAllocator) -> None:
    block = roomy.malloc(1000)
    assert (block.requested_bytes, block.size_bytes) == (1000, 1024)
    assert (roomy.stats.requested_bytes, roomy.stats.allocated_bytes) == (1000, 1024)
    roomy.free(block)
    assert (roomy.stats.requested_bytes, roomy.stats.allocated_bytes) == (0, 0)


def test_a_second_free_is_refused_and_changes_nothing(roomy: CachingAllocator) -> None:
    block, other = roomy.malloc(KIB), roomy.malloc(KIB)
    roomy.free(block)
    with pytest.raises(ValueError, match="not in use"):
        roomy.free(block)
    assert roomy.stats.allocated_bytes == other.size_bytes
    assert len(roomy.free_blocks()) == 2


def test_reset_peak_starts_again_from_what_is_in_use() -> None:
    allocator = CachingAllocator(1 << 40, num_parts=2)
    kept = allocator.malloc(12 * MIB - 1, part=1)
    allocator.free(allocator.malloc(30 * MIB, part=0))
    allocator.empty_cache()
    assert allocator.parts_at_peak == [30 * MIB, 12 * MIB]
    allocator.reset_peak()
    stats = allocator.stats
    assert stats.peak_allocated_bytes == stats.peak_reserved_bytes == kept.size_bytes
    assert stats.peak_requested_bytes == 12 * MIB - 1
    assert allocator.parts_at_peak == [0, 12 * MIB]


def test_parts_at_peak_do_not_follow_what_comes_after() -> None:
    allocator = CachingAllocator(1 << 40, num_parts=2)
    allocator.free(allocator.malloc(16 * MIB, part=0))
    allocator.malloc(14 * MIB + 512, part=1)
    assert allocator.parts_at_peak == [16 * MIB, 0]
    assert allocator.parts == [0, 14 * MIB + 512]
