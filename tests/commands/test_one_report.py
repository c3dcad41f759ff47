"""One set of rows in every format that a report has: terminal, Markdown, page, CSV and JSON say the same numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.report.text.units import GIB, gib, rate, tokens
from bench.store.schema import BOUNDARIES as BOUNDARY_SCHEMA
from bench.store.schema import CASES as CASE_SCHEMA
from tests.analysis.rows_as_read import boundary, fits, oom
from tests.conftest import Program
from tests.report.parsed_page import Page

Rows = list[dict[str, Any]]

FOUND = [boundary(30720, bpw=3.0), boundary(60416, bpw=3.0, cache="Q4"), boundary(18432, bpw=5.0, case_ids=["end"])]
CASES = [
    fits(2048, bpw=3.0, peak_device_bytes=5_123_456_789),
    fits(9472, bpw=3.0, peak_device_bytes=13_987_654_321),
    fits(2048, bpw=4.25, peak_device_bytes=7_555_555_555, lazy=True),
    oom(9472, bpw=4.25, lazy=True, peak_device_bytes=25_000_000_000, predicted_peak_bytes=26_000_000_000),
    fits(18432, bpw=5.0, case_id="end"),
]


@pytest.fixture(scope="module")
def told(called: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each format says."""
    folder = tmp_path_factory.mktemp("told")
    run_dir = folder / "results" / "run"
    run_dir.mkdir(parents=True)
    cases = [{"case_id": f"c{number}", **row} for number, row in enumerate(CASES)]
    found = [{"boundary_id": f"b{number}", **row} for number, row in enumerate(FOUND)]
    pq.write_table(pa.Table.from_pylist(cases, schema=CASE_SCHEMA), run_dir / "cases.parquet")
    pq.write_table(pa.Table.from_pylist(found, schema=BOUNDARY_SCHEMA), run_dir / "boundaries.parquet")
    shown = called("report", "--out", "out", cwd=folder, COLUMNS="80")
    assert shown.returncode == 0, shown.stderr
    document = called("report", "--out", "out", "--json", cwd=folder)
    out = folder / "out"
    return {
        "terminal": [" ".join(line.split()) for line in shown.stdout.splitlines()],
        "page": Page((out / "report.html").read_text()),
        "json": json.loads(document.stdout),
        "tables": _markdown(out / "tables.md"),
        "advice": _markdown(out / "recommendations.md"),
        **{name: _csv(out / f"{name}.csv") for name in ("cases", "boundaries", "recommendations")},
    }


def test_tables_are_the_same_in_the_terminal_in_markdown_and_on_the_page(told: dict[str, Any]) -> None:
    tables = [row.values() for row in told["tables"]]
    advice = [[cell for name, cell in row.items() if name not in ("model", "basis")] for row in told["advice"]]
    assert len(tables) == 2 + 2
    assert len(advice) > 3
    for cells in (*tables, *advice):
        line = " ".join(filter(None, cells))
        assert line in told["terminal"]
        assert line in told["page"].text


def test_raw_numbers_are_the_same_in_csv_and_json(told: dict[str, Any]) -> None:
    for name, rows in (("cases", "case_rows"), ("boundaries", "boundary_rows"), ("recommendations", "recommendations")):
        written, printed = told[name], told["json"][rows]
        assert len(written) == len(printed) > 0
        shared = [column for column in written[0] if column in printed[0]]
        assert len(shared) > 20
        key = sorted(shared)
        assert sorted(_plain(row, key) for row in written) == sorted(_plain(row, key) for row in printed)


def test_what_is_shown_is_what_is_stored_rounded_in_one_way(told: dict[str, Any]) -> None:
    lengths = {(row["bpw"], row["how"]): row for row in told["tables"] if "cache" not in row}
    for row in told["json"]["boundary_rows"]:
        assert lengths[f"{row['bpw']:g}", "load"][row["cache"]] == tokens(row["fits_at"])
    peaks = {(row["bpw"], row["cache"]): row for row in told["tables"] if "cache" in row}
    listed = {(row["bpw"], row["max_seq_len"]): row for row in told["page"].cases}
    for row in told["json"]["case_rows"]:
        on_page = listed[row["bpw"], row["max_seq_len"]]
        if row["peak_device_bytes"] is not None:
            assert on_page["VRAM, GiB"] == round(row["peak_device_bytes"] / GIB, 2)
        if row["case_id"] != "end":  # a boundary's is shown as that boundary
            cell = peaks[f"{row['bpw']:g}", row["cache"]][tokens(row["max_seq_len"])]
            assert cell == (gib(row["peak_device_bytes"]) if row["outcome"] == "fits" else "OOM cache")
    answers = {row["for"]: row for row in told["advice"]}
    for row in told["json"]["recommendations"]:
        policy = "fast" if row["policy"] == "fastest" else row["policy"]
        wanted = f"{policy}, {row['wanted_context']:,}" if row["wanted_context"] else policy
        if row["max_seq_len"] is not None:
            assert answers[wanted]["max_seq_len"].removeprefix("≥ ") == tokens(row["max_seq_len"])
            assert answers[wanted]["left, GiB"].removesuffix(" est.") == gib(row["headroom_bytes"])
            assert answers[wanted]["tokens/s"].removesuffix(" est.") == rate(row["tokens_per_s"])


def _markdown(path: Path) -> Rows:
    """The lines of all tables, by their header."""
    rows, header, last = [], [], ""
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells and not last:
            header = cells
        elif cells and not cells[0].startswith("---"):
            rows.append(dict(zip(header, cells, strict=True)))
        last = line
    return rows


def _csv(path: Path) -> Rows:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _plain(row: dict[str, Any], names: list[str]) -> list[str]:
    """Numbers as numbers, whatever wrote them; None as nothing, moments to the second."""
    return [_text(row[name]) for name in names]


def _text(value: Any) -> str:
    if value is None or value == "" or value != value:
        return ""
    if isinstance(value, list | bool):
        return json.dumps(value)
    try:
        return repr(float(value))
    except ValueError:
        moment = value[:2] == "20" and value[10:11] in ("T", " ")
        return value.replace(" ", "T")[:19] if moment else value.lower() if value in ("True", "False") else value
