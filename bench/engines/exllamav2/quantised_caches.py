"""One recording for all quantised caches: they differ in the bytes of their keys and values, and in nothing else.

ExLlamaV2's Q6 keeps keys at 8 bits and values at 4; Q8 keeps both as Q6 keeps its keys, Q4 both as Q6 its values
(exllamav2/cache.py: weights_per_element_k and weights_per_element_v, has_scales).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.allocator.parts import PARTS
from bench.engines.exllamav2.served import SERVE
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import NoPrediction
from bench.trace.recording import Op
from bench.trace.template import NUM_TERMS, OP, PART, SIZE_TERMS, Array

_SIZES = slice(SIZE_TERMS, SIZE_TERMS + NUM_TERMS)


def with_cache(trace: ParametricTrace, cache: str) -> ParametricTrace:
    """The trace of a search with `cache`, from that of the same search with the cache that it is `recorded_as`."""
    if cache in ("FP16", "Q6"):
        return trace
    templates = {kind: template.copy() for kind, template in trace.templates.items()}
    served = templates.get(SERVE)
    made = [template[_makes_cache(template), _SIZES] for kind, template in templates.items() if kind != SERVE]
    kinds = np.unique(np.concatenate(made), axis=0)
    if len(kinds) != 4:
        raise NoPrediction("a Q6 cache is not made of keys, values, scales and a pair of FP16 tensors")
    _, values, keys, _ = kinds[np.argsort(kinds.sum(axis=1))]  # scales, values, keys, FP16 tensors
    old, new = (values, keys) if cache == "Q8" else (keys, values)
    for kind, template in templates.items():
        if kind != SERVE:
            template[_makes_cache(template) & np.all(template[:, _SIZES] == old, axis=1), _SIZES] = new
    if served is not None:
        _share_a_page(served, cache)
    return replace(trace, templates=templates)


def _share_a_page(served: Array, cache: str) -> None:
    """The generator's pages to copy the cache's with, one of each type and shape: keys and values now share theirs."""
    which = np.flatnonzero(_makes_cache(served))
    if not len(which):  # without pages, and on a card without layers, there are none
        return
    if len(which) != 3:
        raise NoPrediction("the generator has no page for each of a Q6 cache's keys, values and scales")
    _, values, keys = which[np.argsort(served[which, SIZE_TERMS])]
    dropped, kept = (values, keys) if cache == "Q8" else (keys, values)
    first, second = min(dropped, kept), max(dropped, kept)
    served[first, _SIZES] = served[kept, _SIZES]
    served[second, _SIZES] = 0  # nothing is asked for


def _makes_cache(template: Array) -> Array:
    made: Array = (template[:, OP] == Op.MALLOC) & (template[:, PART] == PARTS.index("cache"))
    return made
