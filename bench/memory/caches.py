"""One recording for all quantised caches: they differ in the bytes of their keys and values, and in nothing else.

ExLlamaV2's Q6 keeps keys at 8 bits and values at 4; Q8 keeps both as Q6 keeps its keys, Q4 both as Q6 its values
(exllamav2/cache.py: weights_per_element_k and weights_per_element_v, has_scales).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.memory.parts import PARTS
from bench.memory.program import Program, Unpredictable
from bench.memory.template import NUM_TERMS, OP, PART, SIZE_TERMS, Array
from bench.memory.trace import Op

RECORDED = {"FP16": "FP16", "Q8": "Q6", "Q6": "Q6", "Q4": "Q6"}
_SIZES = slice(SIZE_TERMS, SIZE_TERMS + NUM_TERMS)


def with_cache(program: Program, cache: str) -> Program:
    """The program of a cell with `cache`, from that of the same cell with `RECORDED[cache]`."""
    if cache in ("FP16", "Q6"):
        return program
    made = [template[_makes_cache(template), _SIZES] for template in program.templates.values()]
    kinds = np.unique(np.concatenate(made), axis=0)
    if len(kinds) != 4:
        raise Unpredictable("a Q6 cache is not made of keys, values, scales and a pair of FP16 tensors")
    _, values, keys, _ = kinds[np.argsort(kinds.sum(axis=1))]  # scales, values, keys, FP16 tensors
    old, new = (values, keys) if cache == "Q8" else (keys, values)
    templates = {}
    for kind, template in program.templates.items():
        templates[kind] = template.copy()
        which = _makes_cache(template) & np.all(template[:, _SIZES] == old, axis=1)
        templates[kind][which, _SIZES] = new
    return replace(program, templates=templates)


def _makes_cache(template: Array) -> Array:
    made: Array = (template[:, OP] == Op.MALLOC) & (template[:, PART] == PARTS.index("cache"))
    return made
