"""Engines that never were: recordings with sizes by a function of the pass and of the length, programs by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench.core.outcome import Phase
from bench.engines.exllamav2.samples import extra_passes, load_lengths, whole_lengths
from bench.engines.exllamav2.schedule import schedule
from bench.engines.exllamav2.setup import Setup
from bench.trace import template as columns
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import Pass
from bench.trace.recording import Event, Op, Recording, Section
from bench.trace.template import DENOMINATOR, Array

Sizes = Callable[[Pass, int], Sequence[int]]

PLAIN = Setup(lazy=False, max_input_len=64, batch_size=1, attention="flash", native_max_seq_len=4096)
SETUPS = {
    "plain": PLAIN,
    "lazy": PLAIN._replace(lazy=True),
    "masked": PLAIN._replace(attention="matmul", batch_size=3),
    "window": PLAIN._replace(attention="sdpa", window=100),
    "lazy window": PLAIN._replace(attention="matmul", window=40, lazy=True),
    "yarn": PLAIN._replace(rope_limit=1000, lazy=True),
    "routed": PLAIN._replace(num_experts=8, experts_per_token=2),
}


def recordings(setup: Setup, sizes: Sizes, num_layers: int = 1) -> list[Recording]:
    """At every length at which the recorder takes them."""
    made = []
    for max_seq_len in whole_lengths(setup):
        passes = [*schedule(max_seq_len, setup), *extra_passes(max_seq_len, setup)]
        made.append(_recording(max_seq_len, passes, sizes, num_layers))
    for max_seq_len in load_lengths(setup):
        made.append(_recording(max_seq_len, schedule(max_seq_len, setup)[:2], sizes, num_layers))
    return made


def _recording(max_seq_len: int, passes: Sequence[Pass], sizes: Sizes, num_layers: int) -> Recording:
    recording = Recording(max_seq_len, num_layers, period=1, is_whole=len(passes) > 2)
    for number, each in enumerate(passes):
        section = Section() if number < 2 else Section(each.q_len, each.k_len)
        section.events = events(sizes(each, max_seq_len), keep=each.phase == Phase.CACHE)
        recording.sections.append(section)
    return recording


def events(sizes: Sequence[int], keep: bool = False) -> list[Event]:
    """Allocations of these sizes, each freed when the next but one is made."""
    made: list[Event] = []
    for block, size_bytes in enumerate(sizes):
        made.append(Event(Op.MALLOC, block, size_bytes))
        if block >= 2 and not keep:
            made.append(Event(Op.FREE, block - 2))
    return made


def template(rows: Sequence[dict[int, int]]) -> Array:
    """Events of which only some columns are given; they belong to no layer."""
    events = np.zeros((len(rows), columns.NUM_COLUMNS), np.int64)
    for index, (event, row) in enumerate(zip(events, rows, strict=True)):
        event[columns.LAYER], event[columns.TENSOR], event[columns.BLOCK] = -1, -1, index
        for column, value in row.items():
            event[column] = value
    return events


def malloc(*coefficients: int, stream: int = 0, part: int = 0) -> dict[int, int]:
    """An allocation of c0 + c1 · max_seq_len + c2 · k_len + ... bytes."""
    sizes = {columns.SIZE_TERMS + i: c * DENOMINATOR for i, c in enumerate(coefficients)}
    return {columns.OP: Op.MALLOC, columns.STREAM: stream, columns.PART: part, **sizes}


def free(index: int) -> dict[int, int]:
    """The end of the allocation at `index`."""
    return {columns.OP: Op.FREE, columns.BLOCK: index}


def trace_of(
    setup: Setup = PLAIN, tensors: Sequence[str] = (), scratch: Sequence[list[int]] = (), **templates: Array
) -> ParametricTrace:
    """A program of one layer whose sections are empty but for those that are given."""
    kinds = {"load", "cache", "prompt", "warm_up_0", "warm_up_1", "prefill", "decode"}
    all_templates = {kind: template([]) for kind in sorted(kinds)} | templates
    null_space: dict[str, list[list[int]]] = {kind: [] for kind in all_templates}
    return ParametricTrace(
        templates=all_templates,
        null_space=null_space,
        refused={},
        tensors=list(tensors),
        num_layers=1,
        period=1,
        depth=1,
        setup=setup,
        scratch=list(scratch),
    )
