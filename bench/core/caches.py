"""The names of caches, from fine to coarse, whichever engine has them."""

from __future__ import annotations

import re
from collections.abc import Iterable

CACHES = ("FP16", "Q8", "Q6", "Q4")  # what people call them, from large to small: the finest first
# Bits of a key and of a value together, and those of a key. An engine's Q6 may have 8 and 4 of them, or 6 and 6.
_BITS = {"FP16": (32, 16), "Q8": (16, 8), "Q6": (12, 6), "Q4": (8, 4)}
_PAIR = re.compile(r"k(\d+)v(\d+)")  # the bits of keys and of values


def fineness(cache: str) -> tuple[int, int]:
    """The larger, the finer; of as many bits the one with more for its keys. Of what nobody here knows the least."""
    pair = _PAIR.fullmatch(cache)
    return (int(pair[1]) + int(pair[2]), int(pair[1])) if pair else _BITS.get(cache, (0, 0))


def coarseness(cache: str) -> tuple[int, int]:
    """What caches are sorted by, the finest first."""
    total, key = fineness(cache)
    return -total, -key


def finest_first(caches: Iterable[str]) -> list[str]:
    """Each of `caches` once."""
    return sorted(set(caches), key=coarseness)
