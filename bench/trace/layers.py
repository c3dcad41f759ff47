"""Which layers of a section allocate the same as those before them.

In the replay of a chunk, a layer soon leaves the allocator in the state in which the one before has left it. Then all
alike layers that follow would do so, too, and are not replayed (`bench.trace.sections`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

import numpy as np

from bench.allocator.compiled import as_given
from bench.trace import template as columns
from bench.trace.recording import Op, Size
from bench.trace.template import Array, spans_of_layers


class Layers(NamedTuple):
    """The layers of each kind of section; events are numbered through all kinds, as in `ParametricTrace.all_events`.

    `bounds` [kinds, depth + 3] has the first event of what comes before the layers, of each layer and of what comes
    after, and the end. The layers `alike` [kinds, 2], from the first to before the second, each ask for the same as the
    one `period` before. `carried` are the allocations that a layer or the one a period before it leaves to those
    that follow, layer by layer; those of a layer begin at `carried_bounds` [kinds, depth + 1].
    """

    bounds: Array
    alike: Array
    carried: Array
    carried_bounds: Array
    period: int

    def as_given(self) -> Layers:
        """The same as what is compiled takes it."""
        bounds, alike, carried, carried_bounds = map(as_given, self[:-1])
        return Layers(bounds, alike, carried, carried_bounds, self.period)


def layers_of(templates: Iterable[Array], depth: int, period: int) -> Layers:
    """The layers of templates that have all of a model's `depth` layers."""
    bounds, alike, carried, carried_bounds = [], [], [], []
    first_event = num_carried = 0
    for template in templates:
        spans = spans_of_layers(template, depth)
        left = [_left_behind(template, spans, layer, period) for layer in range(depth)]
        same = [layer >= period and _is_alike(template, spans, left, layer, period) for layer in range(depth)]
        alike.append(_longest_run(same))
        bounds.append([first_event + first for first, _ in spans] + [first_event + len(template)])
        carried += [first_event + left_behind for left_behind in left]
        ends = num_carried + np.cumsum([0, *map(len, left)])
        carried_bounds.append(ends)
        num_carried = int(ends[-1])
        first_event += len(template)
    return Layers(
        bounds=np.array(bounds, np.int64),
        alike=np.array(alike, np.int64),
        carried=np.concatenate([np.zeros(0, np.int64), *carried]).astype(np.int64),
        carried_bounds=np.stack(carried_bounds).astype(np.int64),
        period=period,
    )


def unlike_layers_of(templates: Iterable[Array], depth: int) -> Layers:
    """The same with no layer said to be like another: sooner made, where few lengths are replayed with it."""
    bounds, first_event = [], 0
    for template in templates:
        spans = spans_of_layers(template, depth)
        bounds.append([first_event + first for first, _ in spans] + [first_event + len(template)])
        first_event += len(template)
    return Layers(
        bounds=np.array(bounds, np.int64),
        alike=np.full((len(bounds), 2), depth, np.int64),
        carried=np.zeros(0, np.int64),
        carried_bounds=np.zeros((len(bounds), depth + 1), np.int64),
        period=1,
    )


def _longest_run(same: list[bool]) -> tuple[int, int]:
    """The longest run of true values, first and end; the last layer is mostly other: it frees what all have used."""
    found = (len(same), len(same))
    first = 0
    for holds, run in groupby(same):
        last = first + len(list(run))
        if holds and last - first > found[1] - found[0]:
            found = (first, last)
        first = last
    return found


def _left_behind(template: Array, spans: list[tuple[int, int]], layer: int, period: int) -> Array:
    """What the last two periods up to a layer have made, and the two that follow free."""
    depth = len(spans) - 2
    first, last = spans[max(0, layer - 2 * period + 1) + 1][0], spans[layer + 1][1]
    end = spans[min(depth - 1, layer + 2 * period) + 1][1]
    ops, blocks = template[:, columns.OP], template[:, columns.BLOCK]
    return np.intersect1d(
        blocks[first:last][ops[first:last] == Op.MALLOC], blocks[last:end][ops[last:end] == Op.FREE]
    ).astype(np.int64)


def _is_alike(template: Array, spans: list[tuple[int, int]], left: list[Array], layer: int, period: int) -> bool:
    """Whether a layer asks for what the one a period before asks for, whatever the lengths, and leaves as much."""
    (first, last), (other_first, other_last) = spans[layer + 1], spans[layer - period + 1]
    if last - first != other_last - other_first or last == first:  # there is no such layer of a shallower model
        return False
    events, others = template[first:last], template[other_first:other_last]
    asked = [column for column in range(columns.NUM_COLUMNS) if column not in (columns.BLOCK, columns.LAYER)]
    if np.any(events[:, columns.SIZE_RULE] == Size.TENSOR) or not np.array_equal(events[:, asked], others[:, asked]):
        return False

    def relatively(blocks: Array, layer: int) -> Array:
        makers = template[blocks, columns.LAYER]
        ends = np.array([end for _, end in spans])[makers + 1]
        return np.stack((layer - makers, ends - blocks))

    about = relatively(events[:, columns.BLOCK], layer)
    return (
        bool(np.all(about[0] <= 2 * period))  # an older block is freed by one layer alone, so that no other is like it
        and np.array_equal(about, relatively(others[:, columns.BLOCK], layer - period))
        and np.array_equal(relatively(left[layer], layer), relatively(left[layer - period], layer - period))
    )
