"""Rows as plain values: the same whether they are made plain at once, in parts, or by groups."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.columns import CaseRow
from bench.report import rows
from tests.report.conftest import FrameOf, fits


class _Place(TypedDict):
    place: int


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 5))
def test_groups_have_their_rows_in_the_order_of_the_frame(numbers: list[int], at_once: int) -> None:
    frame = pd.DataFrame({"place": range(len(numbers))}, dtype="int64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_AT_ONCE", at_once)
        groups = list(rows.groups_of(frame, np.array(numbers, dtype=np.int64), _Place))
    expected = [[{"place": i} for i, n in enumerate(numbers) if n == number] for number in sorted(set(numbers))]
    assert groups == expected


def test_whole_numbers_stay_whole_beside_a_null_in_another_part(
    frame_of: FrameOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_AT_ONCE", 1)
    (group,) = rows.groups_of(frame_of(fits(4096, 5.0), fits(8192, None)), np.zeros(2, dtype=np.int64), CaseRow)
    assert [row["peak_device_bytes"] for row in group] == [5 << 30, None]
    assert type(group[0]["peak_device_bytes"]) is int


def test_lists_that_are_equal_become_one_and_none_is_changed() -> None:
    given_lists: list[Any] = [np.array(["a"]), None, np.array(["a"]), np.array([]), np.array(["a", "b"]), None]
    column = pd.Series(given_lists, index=[5, 4, 3, 2, 1, 0], dtype=object)
    found = rows.shared(column)
    assert found.index.tolist() == column.index.tolist()
    assert [None if own is None else list(own) for own in found] == [["a"], None, ["a"], [], ["a", "b"], None]
    assert found[5] is found[3]
