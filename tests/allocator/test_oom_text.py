"""The text of an out-of-memory error: PyTorch's own figures, in its own units."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.allocator.caching import CachingAllocator, OutOfMemory
from bench.allocator.oom_text import format_size, oom_text

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


# What PyTorch's format_size gives, from messages that real GPUs printed.
@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"),
        (KIB, "1024 bytes"),
        (KIB + 512, "1.50 KiB"),
        (MIB, "1024.00 KiB"),
        (64 * MIB, "64.00 MiB"),
        (GIB, "1024.00 MiB"),
        (2000 * MIB, "1.95 GiB"),
        (15_828_320_256, "14.74 GiB"),
    ],
)
def test_sizes_are_printed_as_pytorch_prints_them(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("asked_bytes", "tried"),
    [(1, "2.00 MiB"), (MIB, "2.00 MiB"), (2 * MIB, "20.00 MiB"), (9 * MIB, "20.00 MiB"), (21 * MIB, "22.00 MiB")],
)
def test_what_was_tried_is_the_segment_and_not_the_tensor(asked_bytes: int, tried: str) -> None:
    assert f"Tried to allocate {tried}. GPU 0" in message(asked_bytes, MIB, [])


@given(st.integers(1, 3 * GIB), st.lists(st.integers(1, 40 * MIB), max_size=6))
def test_the_figures_of_a_message_are_the_allocators(asked_bytes: int, held_bytes: list[int]) -> None:
    text = message(asked_bytes, GIB, held_bytes)
    if text:
        units = {"bytes": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}
        figures = [float(size) * units[unit] for size, unit in re.findall(r"([\d.]+) (bytes|[KMG]iB)", text)]
        tried, total, free, allocated, unallocated = figures
        assert tried >= asked_bytes - 0.005 * GIB
        assert free < tried + 0.005 * GIB
        assert total == pytest.approx(free + allocated + unallocated, abs=0.02 * GIB)


def message(asked_bytes: int, limit_bytes: int, held_bytes: list[int]) -> str:
    """What is said when a request finds the card full; nothing where it does not."""
    allocator = CachingAllocator(limit_bytes)
    try:
        for size_bytes in [*held_bytes, asked_bytes]:
            allocator.malloc(size_bytes)
    except OutOfMemory as error:
        return oom_text(error, allocator.stats, limit_bytes)
    return ""
