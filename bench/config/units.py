"""Sizes, rates and lengths as people type them."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_RATE_UNITS = {**_UNITS, "tb": 10**12, "tib": 1 << 40}
_COUNTS = {"": 1, "k": 1 << 10, "ki": 1 << 10, "m": 1 << 20, "mi": 1 << 20}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_MAX_BYTES = 1 << 50
_FEWEST_BARE_BYTES = 1 << 20  # nobody means fewer; a number without a unit that is smaller is one of another unit
_FEWEST_BARE_RATE = 1e6
_MOST_GIB = 256  # what is more, and has no unit, is rather MiB
_MAX_TOKENS = 1 << 50


class MissingUnit(ValueError):
    """A number that is too small, or not whole, for the unit that it would have by itself."""


def number_in_words(value: float) -> str:
    """`-5`, `1,000`, `0.5`, or `about 10^30`."""
    if isinstance(value, int) and abs(value) >= 10**15:
        return f"about {'-' if value < 0 else ''}10^{len(str(abs(value))) - 1}"
    return f"{value:,}"


def parse_size(text: str | float, is_small: bool = False) -> int:
    """Bytes of `24GiB`, `512MiB` or a plain number; raises ValueError with what is allowed.

    A plain number that can be no bytes is refused; one that `is_small` is rather meant in MiB than in GiB.
    """
    size_bytes = _amount(text, _UNITS)
    if size_bytes is None or not 0 < size_bytes < _MAX_BYTES:
        raise ValueError(f"{text!r} is not a size; write it as 24GiB, 512MiB or in bytes")
    if _is_bare(text) and (size_bytes < _FEWEST_BARE_BYTES or size_bytes.denominator != 1):
        meant = "MiB" if is_small or size_bytes >= _MOST_GIB else "GiB"
        raise MissingUnit(f"{text} has no unit and can be no bytes; did you mean {str(text).strip()}{meant}?")
    if size_bytes < 1:
        raise ValueError(f"{text!r} is less than a byte; write it as 24GiB, 512MiB or in bytes")
    return int(size_bytes)


def parse_rate(text: str | float) -> float:
    """Bytes a second of `936GB/s`, `3.35TB/s` or a plain number; raises ValueError with what is allowed.

    A plain number that can be no bytes per second is refused.
    """
    rate = text if isinstance(text, int | float) else _amount(str(text).strip().removesuffix("/s"), _RATE_UNITS)
    if isinstance(rate, bool) or rate is None or not 0 < rate < _MAX_BYTES:
        raise ValueError(f"{text!r} is not a bandwidth; write it as 936GB/s or in bytes per second")
    if _is_bare(text) and rate < _FEWEST_BARE_RATE:
        meant = "TB/s" if rate < 10 else "GB/s"
        raise MissingUnit(
            f"{text} has no unit and can be no bytes per second; did you mean {str(text).strip()}{meant}?"
        )
    return float(rate)


def parse_tokens(text: str | int) -> int:
    """Tokens of `32k`, `128K`, `1M` or a plain number, k being 1,024; raises ValueError with what is allowed."""
    tokens = _amount(text, _COUNTS)
    if tokens is None or tokens.denominator != 1 or tokens >= _MAX_TOKENS:
        raise ValueError(f"{text!r} is not a number of tokens; write it as 8192 or 8k (k is 1,024)")
    return int(tokens)


def _is_bare(text: str | float) -> bool:
    return str(text).strip()[-1:].isdigit()


def _amount(text: str | float, units: dict[str, int]) -> Fraction | None:
    """The exact amount that `text` names in one of `units`; None where it names none."""
    match = _AMOUNT.fullmatch(str(text))
    if match is None or match[2].lower() not in units:
        return None
    return Fraction(match[1]) * units[match[2].lower()]
