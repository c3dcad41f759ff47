"""The engine's caches: FP16, and keys and values of 2 to 8 bits each (exllamav3/cache/quant.py, CacheLayer_quant).

A quantised side has an FP16 scale for every 32 values beside the bits. `Q8`, `Q6` and `Q4` are what people call pairs
of the same bits; the others are named by both: `k8v5` has keys of 8 bits and values of 5, which TabbyAPI writes `8,5`.
"""

from __future__ import annotations

from itertools import product

from bench.engines.base import CacheType

_LEAST, _MOST = 2, 8
_NAMED = {8: "Q8", 6: "Q6", 4: "Q4"}
IN_WORDS = f"FP16, Q8, Q6, Q4, or the bits of keys and of values, {_LEAST} to {_MOST} each: k8v5"


def _name(key_bits: int, value_bits: int) -> str:
    return _NAMED[key_bits] if key_bits == value_bits and key_bits in _NAMED else _pair(key_bits, value_bits)


def _pair(key_bits: int, value_bits: int) -> str:
    return f"k{key_bits}v{value_bits}"


# From fine to coarse; of as many bits in all, those with more for the keys first.
_BITS = range(_LEAST, _MOST + 1)
_PAIRS = sorted(product(_BITS, _BITS), key=lambda bits: (-sum(bits), -bits[0]))
CACHES = {
    "FP16": CacheType(16, 16, "FP16"),
    **{_name(*bits): CacheType(*bits, _name(*bits)) for bits in _PAIRS},
}
SYNONYMS = {_pair(*bits): _name(*bits) for bits in _PAIRS if _pair(*bits) != _name(*bits)}
