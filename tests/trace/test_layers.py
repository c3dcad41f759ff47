"""Layers that a replay leaves out: the outcome is the allocator's, event by event."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.trace import template as columns
from bench.trace.layers import layers_of
from bench.trace.replay import Replayer
from bench.trace.template import Array
from tests.trace.synthetic_recordings import PLAIN, free, malloc, template, trace_of
from tests.trace.test_replay import limits, one_by_one, sections

DEPTH = 9


def layered(before: Array, layer: Array, after: Array, depth: int = DEPTH, handed_on: int = 0, lag: int = 1) -> Array:
    """What comes before the layers, `depth` equal layers, and what comes after.

    With `handed_on` bytes for each token after the first, every layer makes a tensor that is freed `lag` layers later,
    or at the end.
    """
    parts, makers, count = [before.copy()], [], len(before)
    for index in range(depth):
        events = layer.copy()
        if handed_on:
            events = np.concatenate([template([malloc(0, 0, handed_on)]), events])
            events[1:, columns.BLOCK] += 1
            events[0, columns.BLOCK] = 0
        events[:, columns.BLOCK] += count
        makers += [count] if handed_on else []
        if handed_on and index >= lag:
            events = np.concatenate([events, template([free(makers[index - lag])])])
        events[:, columns.LAYER] = index
        parts.append(events)
        count += len(events)
    last = after.copy()
    last[:, columns.BLOCK] += count
    ends = template([free(maker) for maker in makers[depth - lag :]]) if handed_on else template([])
    parts.append(np.concatenate([last, ends]))
    parts[-1][:, columns.LAYER] = depth
    return np.concatenate(parts)


@given(
    load=sections(True),
    before=sections(True),
    layer=sections(False),
    after=sections(False),
    leaves=st.booleans(),
    handed_on=st.sampled_from([0, 0, 400, 9000, 70000]),
    lag=st.integers(1, 3),
    attention=st.sampled_from(["flash", "matmul"]),
    length=st.integers(40, 700),
    shares=st.lists(st.floats(0.3, 1.1), min_size=2, max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_layers_that_are_left_out_would_have_done_nothing_else(
    load: Array,
    before: Array,
    layer: Array,
    after: Array,
    leaves: bool,
    handed_on: int,
    lag: int,
    attention: str,
    length: int,
    shares: list[float],
) -> None:
    """Whether they hand on tensors, keep some, or grow with the context."""
    kept = before if leaves else template([])
    deep = layered(kept, layer, after, handed_on=handed_on, lag=lag)
    chunks = dict.fromkeys(("prefill", "prefill_of_1", "prefill_of_2"), deep)
    templates = {"load": load, **chunks, "decode": layered(template([]), layer, after)}
    trace = replace(trace_of(PLAIN._replace(attention=attention), **templates), num_layers=DEPTH, depth=DEPTH)
    replayer = Replayer(trace, {})
    need = one_by_one(trace, length, limits(), {})
    assert vars(replayer.replay(length, limits(), endless=True)) == need
    for share in shares:
        card = limits(int(need["peak_reserved_bytes"] * share))
        assert vars(replayer.replay(length, card)) == one_by_one(trace, length, card, {})


def test_equal_layers_are_found_to_be_alike() -> None:
    """All but the first, and those whose neighbours are missing; a layer that is unlike ends them."""
    own = template([malloc(0, 0, 4000), malloc(700), free(0), free(1)])
    plain = layers_of([layered(template([malloc(512)]), own, template([]))], DEPTH, period=1)
    assert plain.alike.tolist() == [[1, DEPTH]]
    handing = layers_of([layered(template([]), own, template([]), handed_on=2048)], DEPTH, period=1)
    assert 0 < handing.alike[0][0] <= 3 < DEPTH - 2 <= handing.alike[0][1]
    unlike = layered(template([]), own, template([]))
    unlike[-4, columns.SIZE_TERMS] += 64  # in the last layer
    assert layers_of([unlike], DEPTH, period=1).alike.tolist() == [[1, DEPTH - 1]]
