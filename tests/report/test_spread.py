"""Cards of one kind, on one host or several: one table, with the spread, and every row kept."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.report.kinds import by_kind, latest_of_each_host
from bench.report.publish import publish
from tests.report.conftest import FrameOf, ends, fits, no_answer, nothing, oom

L4: dict[str, Any] = {"device_name": "nvidia_l4", "device_kind": "cuda", "device_total_bytes": 24 << 30}


def _on(number: int, **values: Any) -> dict[str, Any]:
    return {**L4, "device_uuid": f"GPU-0000-{number}", "host": f"lab-{number}", **values}


def _tables(cases: pd.DataFrame, boundaries: pd.DataFrame, out_dir: Path) -> str:
    publish(cases, boundaries, out_dir, echo=False, plots=False)
    return (out_dir / "tables.md").read_text()


def test_two_cards_of_a_kind_are_one_table_of_the_one_with_the_least_room(
    frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path
) -> None:
    text = _tables(frame_of(), boundaries_of(_on(1, **ends(8448)), _on(2, **ends(8192))), tmp_path)
    assert text.count("### tiny on nvidia_l4 (measured), 24.00 GiB [2 of a kind]") == 1
    assert "| 4 | load | 8,192 |" in text
    assert "| 4 | FP16 | load | 2 | 2 | 8,192 to 8,448 (3.1 %) |" in text
    assert "GPU-0000-1: on lab-1" in text
    assert "GPU-0000-2: on lab-2" in text
    page = (tmp_path / "report.html").read_text()
    assert all(f">lab-{number}<" in page for number in (1, 2))  # where each was measured
    kept = pd.read_csv(tmp_path / "boundaries.csv")
    assert sorted(kept["device_uuid"]) == ["GPU-0000-1", "GPU-0000-2"]


def test_a_case_that_fails_on_one_card_is_shown_as_failed_and_its_spread_says_so(
    frame_of: FrameOf, boundaries_of: FrameOf, tmp_path: Path
) -> None:
    rows = (_on(1, **fits(4096, 5.0, decode_tokens_per_s_full=50.0)), _on(2, **oom(4096)), _on(3, **fits(4096, 6.0)))
    found = by_kind(frame_of(*rows), boundaries_of())
    assert found.cases["outcome"].tolist() == ["oom"]
    assert len(found.all_cases) == 3
    text = _tables(frame_of(*rows), boundaries_of(), tmp_path)
    assert "| 4 | FP16 | load | 3 | 3 | 4,096 | 2 fits, 1 oom | 5.0 to 6.0 (20.0 %) | 50 |" in text


def test_where_nothing_fits_on_one_card_and_another_gave_no_answer(
    boundaries_of: FrameOf, frame_of: FrameOf, tmp_path: Path
) -> None:
    rows = (_on(1, **ends(512)), _on(2, **nothing()), _on(3, **no_answer("crash")))
    assert by_kind(frame_of(), boundaries_of(*rows)).boundaries["outcome"].tolist() == ["oom"]
    assert "| 3 | 3 | none, 512, crash |" in _tables(frame_of(), boundaries_of(*rows), tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        {"device_name": "nvidia_a10"},
        {"device_total_bytes": 23 << 30},
        {"vram_limit_bytes": 8 << 30},
        {"device_kind": "simulated", "device_uuid": None},
    ],
)
def test_cards_of_different_kinds_stay_apart(frame_of: FrameOf, boundaries_of: FrameOf, other: dict[str, Any]) -> None:
    boundaries = boundaries_of(_on(1, **ends(8448)), {**_on(2, **ends(8192)), **other})
    found = by_kind(frame_of(), boundaries)
    assert found.boundaries is boundaries
    assert found.all_boundaries.empty


def test_one_case_measured_on_two_hosts_is_two_rows(frame_of: FrameOf) -> None:
    early, late = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
    moved = {"case_id": "one", **fits(4096, 5.0), **L4, "device_uuid": "GPU-1"}
    rows = [{**moved, "host": host, "started_at": when} for host, when in (("a", early), ("b", early), ("a", late))]
    kept = latest_of_each_host(frame_of(*rows), "case_id", "started_at")
    assert sorted(zip(kept["host"], kept["started_at"], strict=True)) == [("a", late), ("b", early)]
    found = by_kind(kept, kept.iloc[:0])
    assert (len(found.cases), len(found.all_cases)) == (1, 2)
    simulated = [{**row, "device_kind": "simulated", "device_uuid": None} for row in rows]
    assert len(latest_of_each_host(frame_of(*simulated), "case_id", "started_at")) == 1
