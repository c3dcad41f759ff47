"""The colours of caches and of engines, the same in pictures and on the page."""

from __future__ import annotations

import colorsys

from bench.core.caches import CACHES, fineness
from bench.engines.registry import NAMES

# Okabe and Ito's palette, safe for the colour-blind.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
CACHE_COLOURS = dict(zip(CACHES, _PALETTE, strict=True))
_MOST_BITS = 16  # of a key and a value together, where neither is FP16


def cache_colour(cache: str) -> str:
    """As `#RRGGBB`. Of pairs of bits the hue follows the bits in all, and the lightness those of the keys."""
    if cache in CACHE_COLOURS:
        return CACHE_COLOURS[cache]
    total, key = fineness(cache)
    rgb = colorsys.hls_to_rgb(total / (_MOST_BITS + 2), 0.25 + key / 25, 0.65)
    return "#" + "".join(f"{round(255 * part):02X}" for part in rgb)


def engine_colour(engine: str) -> str:
    """That of an engine's place among all; a picture is of engines or of caches."""
    return _PALETTE[NAMES.index(engine) % len(_PALETTE)]
