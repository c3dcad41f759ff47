"""Runs the sweep that pull requests are checked with, and keeps its rows as the baseline, in `.github/baseline`.

    .venv/bin/python scripts/renew/update_baseline.py

For a change that is meant to take more memory, or less: the new baseline is part of the same pull request, and its
report says what changed. Takes about two minutes on two cores. Where the sweep was run is left out of the rows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.store.store import read_boundaries, read_cases

BASELINE = Path(__file__).parents[2] / ".github" / "baseline"
# Of this machine, or of this minute.
LEFT_OUT = ("host", "environment", "telemetry", "phases")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        sweep = ["sweep", "experiment=pull_request", f"results_dir={scratch}", "run_id=baseline"]
        subprocess.run([sys.executable, "-m", "bench", *sweep], check=True)
        BASELINE.mkdir(parents=True, exist_ok=True)
        for name, read in (("cases", read_cases), ("boundaries", read_boundaries)):
            table, problems = read(Path(scratch))
            assert not problems, problems
            pq.write_table(without_origin(table), BASELINE / f"{name}.parquet", compression="zstd")


def without_origin(table: pa.Table) -> pa.Table:
    for name in set(LEFT_OUT) & set(table.column_names):
        column = table.schema.get_field_index(name)
        table = table.set_column(column, table.schema.field(name), pa.nulls(table.num_rows, pa.string()))
    return table


if __name__ == "__main__":
    main()
