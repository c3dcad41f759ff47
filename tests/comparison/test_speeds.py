"""When two sets of timings differ."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bench.comparison.speeds import Speeds, compare_speeds

COLUMN = "decode_tokens_per_s"


def _rows(*samples: list[float], tokens: int = 100) -> list[dict[str, Any]]:
    middles = [sorted(seconds)[len(seconds) // 2] for seconds in samples]
    return [
        {COLUMN: tokens / middle, "decode_samples_s": seconds} for seconds, middle in zip(samples, middles, strict=True)
    ]


@pytest.mark.parametrize(("count", "p_value"), [(3, 0.1), (4, 2 / 70), (5, 2 / 252)])
def test_p_is_exact(count: int, p_value: float) -> None:
    speeds = compare_speeds(_rows([1.0] * count), _rows([2.0] * count), COLUMN)
    assert speeds.p_value == pytest.approx(p_value)
    assert speeds.decidable is speeds.significant is (p_value < 0.05)


def test_a_sample_that_times_more_tokens_is_not_slower() -> None:
    speeds = compare_speeds(_rows([1.0, 1.0, 1.0]), _rows([2.0, 2.0, 2.0], tokens=200), COLUMN)
    assert (speeds.base, speeds.head) == (100.0, 100.0)
    assert not speeds.apart(0.001)


def test_the_samples_of_all_rows_count() -> None:
    speeds = compare_speeds(_rows([1.0, 2.0, 4.0], [2.0]), _rows([1.0]), COLUMN)
    assert (speeds.base, speeds.base_count, speeds.head_count) == (50.0, 4, 1)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {COLUMN: None, "decode_samples_s": None},
        {COLUMN: 100.0, "decode_samples_s": None},
        {COLUMN: None, "decode_samples_s": [1.0]},
        {COLUMN: 100.0, "decode_samples_s": [None, math.nan, 0.0, math.inf]},
        {COLUMN: math.nan, "decode_samples_s": [1.0]},
    ],
)
def test_what_was_not_timed_has_no_speed(row: dict[str, Any]) -> None:
    assert compare_speeds([row], [row], COLUMN) == Speeds(None, None, 0, 0, None)


def test_the_threshold_is_the_same_from_either_side() -> None:
    fast, slow = _rows([1.0] * 5), _rows([1.1] * 5)
    for speeds in (compare_speeds(fast, slow, COLUMN), compare_speeds(slow, fast, COLUMN)):
        assert speeds.apart(0.099)
        assert not speeds.apart(0.101)
