"""What each setting costs and gives: the Pareto front of VRAM, context, tokens/s and bits per weight. Pure.

More bits count as better, as in a recommendation by quality: first those per weight, then those of the head. What the
type of the cache is worth, only a figure of `quality` says.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.analysis.evidence import QUESTION, SETTING

_KEPT = [*QUESTION, *SETTING, "max_seq_len", "peak_device_bytes", "headroom_bytes", "certified"]
_ROW = ["run_id", "case_id", "boundary_id", "notes"]
_USED = ["question", *_KEPT, *_ROW]
COLUMNS = ["question", *_KEPT, "tokens_per_s", "tokens_per_s_basis", "on_front", "dominated_by", *_ROW, "place"]


def tradeoffs(shown_to_fit: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting and length of the `evidence`, with `COLUMNS`.

    `tokens_per_s` is with the context full: measured where any row of the question is, then null in those that are not;
    else estimated. `on_front`: no other row of its question is as good in VRAM, context, speed and bits, and
    better in one. It is null, and the row not compared, where its VRAM is unknown, or its speed while that of others is
    known; where no speed is known, the others count. `dominated_by` is the `place` among the rows of the question of
    one on the front that is better.
    """
    measured = shown_to_fit["decode_tokens_per_s_full"].astype(float)
    question = shown_to_fit["question"]
    has_measured = measured.notna().groupby(question).transform("any").astype(bool)
    speed = measured.where(has_measured, shown_to_fit["estimated_decode_tokens_per_s"].astype(float))
    basis = pd.Series(np.where(has_measured, "measured", "estimated"), index=question.index, dtype=object)
    rows = shown_to_fit[_USED].assign(tokens_per_s=speed, tokens_per_s_basis=basis.where(speed.notna(), None))
    order = ["question", "bpw", "cache", "lazy", "max_seq_len", *SETTING]
    rows = rows.sort_values(list(dict.fromkeys(order)), kind="stable").reset_index(drop=True)
    has_speed = rows["tokens_per_s"].notna().groupby(rows["question"]).transform("any").astype(bool)
    compared = rows["peak_device_bytes"].notna() & (rows["tokens_per_s"].notna() | ~has_speed)
    dominator = np.full(len(rows), -1)
    bits = rows[["bpw", "head_bits"]].fillna(0)
    axes = np.column_stack(
        [
            -rows["peak_device_bytes"].to_numpy(float),
            rows["max_seq_len"].to_numpy(float),
            rows["tokens_per_s"].fillna(0).to_numpy(float),
            bits.groupby(["bpw", "head_bits"]).ngroup().to_numpy(float),
        ]
    )
    positions = np.flatnonzero(compared)
    for places in np.split(positions, np.flatnonzero(np.diff(rows["question"].to_numpy()[positions])) + 1):
        found = dominators(axes[places])
        dominator[places] = np.where(found < 0, -1, places[found])
    place = rows.groupby("question").cumcount()
    on_front = pd.Series(dominator < 0, index=rows.index, dtype="boolean").where(compared, pd.NA)
    better = pd.Series(dominator, dtype="Int64").where(dominator >= 0, pd.NA)
    # From the position among all rows to the place among those of the question.
    starts = rows.index.to_series() - place
    return rows.assign(on_front=on_front, dominated_by=better - starts, place=place)[COLUMNS]


def dominators(points: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For each of `points` (n, axes; more is better in each) one of the front that is better, -1 on the front itself.

    Better: as good in every axis, and more in one; equal points are all on the front. In the order of falling values
    no point can be worse than a later one, so the first that is left is always on the front, and takes away what it
    is better than: as many passes as the front has distinct points.
    """
    better = np.full(len(points), -1)
    left = np.lexsort(-points.T[::-1])
    while len(left):
        first = points[left[0]]
        equal = (points[left] == first).all(axis=1)
        worse = (points[left] <= first).all(axis=1) & ~equal
        better[left[worse]] = left[0]
        left = left[~(equal | worse)]
    return better
