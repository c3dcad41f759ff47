"""Tables that older versions of the program wrote, kept for ever: whoever has them can still read and compare them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.store.schema import SCHEMAS, Kind, value_before
from bench.store.store import read_boundaries, read_cases
from tests.conftest import Program

FROZEN = Path(__file__).parent / "frozen"
VERSIONS = sorted(path.name for path in FROZEN.iterdir())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_row_of_an_older_version_is_read(version: str) -> None:
    for read, kind in ((read_cases, Kind.CASES), (read_boundaries, Kind.BOUNDARIES)):
        table, problems = read(FROZEN / version)
        stored = pq.read_table(FROZEN / version / f"{kind}.parquet")
        assert problems == []
        assert table.schema.equals(SCHEMAS[kind])
        assert table.num_rows == stored.num_rows > 0
        assert table.select(stored.column_names).to_pylist() == stored.to_pylist()
        # It kept the version under the engine's own name.
        assert table.column("engine_version").equals(table.column("exllamav2_version"))
        assert table.column("engine_version").null_count == 0
        for name in {*table.column_names} - {*stored.column_names, "engine_version"}:  # what it did not know yet
            assert set(table.column(name).to_pylist()) == {value_before(SCHEMAS[kind].field(name))}


def test_there_is_one_of_each_version_before_this_one() -> None:
    versions = [pq.read_schema(FROZEN / name / "cases.parquet").metadata[b"schema_version"] for name in VERSIONS]
    assert versions == [b"1", b"2"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_report_and_a_comparison_are_made_of_it(version: str, in_process: Program, tmp_path: Path) -> None:
    done = in_process("report", "--results", str(FROZEN / version), "--out", str(tmp_path / "report"))
    assert done.returncode == 0, done.stderr
    assert "tinyllama_1_1b" in done.stdout
    same = in_process("compare", str(FROZEN / version), str(FROZEN / version))
    assert same.returncode == 0, same.stderr
    assert "nothing worse" in same.stdout
