"""One recording of long prompts and of decoding for all bits, and one of loading and what comes next for each.

exllamav3 carves weights out of slabs (exllamav3/loader/safetensors.py, _arena_alloc), and takes another way for a few
rows by the bits of a matrix: a layer is recorded with the bits that it has. From a page of tokens on weights are
reconstructed, whatever their bits.
"""

from __future__ import annotations

from dataclasses import replace

from bench.core.outcome import Phase
from bench.trace.parametric import ParametricTrace
from bench.trace.recording import Op
from bench.trace.template import Array, without


def with_loading(trace: ParametricTrace, loading: ParametricTrace) -> ParametricTrace:
    """The trace of a checkpoint: its own `loading`, and all else of `trace`, of another's, with every layer."""
    known = {*loading.templates, *loading.refused}
    own = {kind: _without_buffers(kind, each) for kind, each in trace.templates.items() if kind not in known}
    return replace(
        trace,
        templates={**loading.templates, **own},
        null_space={**trace.null_space, **loading.null_space},
        refused={**{kind: reason for kind, reason in trace.refused.items() if kind not in known}, **loading.refused},
    )


def _without_buffers(kind: str, template: Array) -> Array:
    """What decoding takes beside PyTorch by the bits of its matrices, it has taken at the first token."""
    if not kind.startswith(Phase.DECODE):
        return template
    return without(template, Op.BESIDE)
