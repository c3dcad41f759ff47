"""The turns after the first of a case of several: as many conversations, one after the other, with one model."""

from __future__ import annotations

from bench.core.case import PAGE

# Multiples of the golden section leave no part of the lengths out, however many there are.
_GOLDEN = (5**0.5 - 1) / 2


def lengths_of_turns(longest: int, shortest: int, turns: int) -> list[int]:
    """The tokens with which the turns 2, 3, ... begin, each whole pages fewer than `longest`, which the first has.

    Of three and more the last is as long as the first: what has grown until then has not grown by the length.
    """
    pages = max(0, longest - shortest) // PAGE
    lengths = [longest - (pages and 1 + int((turn - 1) * _GOLDEN % 1 * pages)) * PAGE for turn in range(2, turns + 1)]
    return [*lengths[:-1], longest] if turns > 2 else lengths
