"""Expandable segments: held to a plain statement of their rules, and figures that PyTorch 2.13 was seen to come to.

What PyTorch itself answered, operation by operation, is in tests/oracle/test_vectors.py.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.allocator.caching import CachingAllocator, OutOfMemory
from tests.allocator.expandable_sequences import Operation, compare, random_operations

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

_EDGES = st.builds(
    lambda edge, off: edge + off,
    st.sampled_from([512, MIB, 2 * MIB, 10 * MIB, 20 * MIB, 40 * MIB]),
    st.integers(-1, 513),
)
_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), _EDGES | st.integers(1, 100 * MIB), st.integers(0, 2)),
        st.tuples(st.just("malloc"), _EDGES | st.integers(1, 100 * MIB), st.just(0)),
        st.tuples(st.just("free"), st.integers(0, 1 << 20), st.just(0)),
        st.tuples(st.just("empty_cache"), st.just(0), st.just(0)),
        st.tuples(st.just("fraction"), st.integers(100 * MIB, 450 * MIB), st.just(0)),
    ),
    max_size=80,
)


def _of_live(operations: list[Operation]) -> list[Operation]:
    """With frees of blocks that are there."""
    possible: list[Operation] = []
    live = 0
    for name, value, stream in operations:
        if name != "free":
            possible.append((name, value, stream))
        elif live:
            possible.append((name, value % live, stream))
        live += (name == "malloc") - (name == "free" and live > 0)
    return possible


@settings(max_examples=150, deadline=None)
@given(_OPERATIONS)
def test_any_operations_are_answered_by_the_rules(operations: list[Operation]) -> None:
    assert compare(437 * MIB, _of_live(operations)).different is None


def test_long_sequences_are_answered_by_the_rules() -> None:
    found = [compare(*random_operations(seed, 1000)) for seed in range(100, 106)]
    assert [each.different for each in found] == [None] * 6
    assert sum(each.num_ooms for each in found) > 50
    assert sum(each.num_retries for each in found) > 50


def _pieces(allocator: CachingAllocator, size_bytes: int, at_most: int = 10_000) -> list[int]:
    """As many pieces as there is room for."""
    pieces = []
    try:
        while len(pieces) < at_most:
            pieces.append(allocator.malloc(size_bytes))
    except OutOfMemory:
        pass
    return pieces


# As many as PyTorch 2.13.0 got out of a null GPU of 12 GiB, one size at a time.
@pytest.mark.parametrize(
    ("size_bytes", "native", "expandable"), [(3 * MIB, 3684, 4093), (21 * MIB, 558, 584), (GIB, 12, 11)]
)
def test_pieces_that_fill_no_segment_lose_less_in_one_that_grows(size_bytes: int, native: int, expandable: int) -> None:
    assert len(_pieces(CachingAllocator(12 * GIB), size_bytes)) == native
    assert len(_pieces(CachingAllocator(12 * GIB, device_bytes=12 * GIB), size_bytes)) == expandable


def test_a_fraction_counts_a_segment_of_the_request_s_own_and_not_its_pages() -> None:
    refused = CachingAllocator(GIB, device_bytes=GIB, fraction_bytes=65 * MIB)
    refused.malloc(21 * MIB)
    with pytest.raises(OutOfMemory):  # 40 are mapped, and 20 more would do; it counts 30
        refused.malloc(30 * MIB)
    assert (refused.stats.reserved_bytes, refused.stats.num_alloc_retries) == (40 * MIB, 1)
    beyond = CachingAllocator(GIB, device_bytes=GIB, fraction_bytes=32 * MIB)
    beyond.malloc(30 * MIB)
    assert beyond.stats.reserved_bytes == 40 * MIB


def test_pages_that_lie_wholly_in_free_blocks_are_given_back_and_mapped_again_from_below() -> None:
    allocator = CachingAllocator(GIB, device_bytes=GIB)
    first, middle, last = (allocator.malloc(size) for size in (30 * MIB, 50 * MIB, 4 * MIB))
    begin, end = allocator.block(middle).address, allocator.block(last).address
    allocator.free(middle)
    assert allocator.stats.reserved_bytes == 100 * MIB
    allocator.empty_cache()  # of 30 to 80 MiB, 40 to 80 are pages
    assert allocator.stats.reserved_bytes == 60 * MIB
    again = allocator.malloc(18 * MIB)  # in what is left of the second page, and one page more
    assert allocator.block(again).address == begin < end
    assert allocator.stats.reserved_bytes == 80 * MIB
    for row in (first, again, last):
        allocator.free(row)
    allocator.empty_cache()
    assert (allocator.stats.reserved_bytes, len(allocator.all_blocks())) == (0, 0)


def test_what_earlier_mappings_of_a_request_that_fails_have_added_stays_until_the_release() -> None:
    allocator = CachingAllocator(110 * MIB, device_bytes=110 * MIB)
    low, held = allocator.malloc(20 * MIB), allocator.malloc(20 * MIB)
    assert allocator.stats.reserved_bytes == 40 * MIB
    allocator.free(low)
    with pytest.raises(OutOfMemory):
        allocator.malloc(90 * MIB)
    assert allocator.stats.reserved_bytes == 20 * MIB
    assert allocator.block(held).in_use
