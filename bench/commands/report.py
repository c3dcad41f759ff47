"""`vram-bench report`: every table and plot again, from stored rows alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.errors import BadInput, ExitCode
from bench.report.publish import publish
from bench.results.store import read_cases


def report(results: Path, out_dir: Path, as_json: bool) -> int:
    """Writes the report of everything below `results` to `out_dir`; returns the exit code."""
    if not results.exists():
        raise BadInput(f"--results {results}: no such directory; run a sweep first, or name another")
    table, problems = read_cases(results)
    for problem in problems:
        print(f"vram-bench: skipped {problem}", file=sys.stderr)
    if not table.num_rows:
        raise BadInput(f"--results {results}: no rows in it; run a sweep first, or name another")
    frame = table.to_pandas().sort_values("started_at").drop_duplicates("case_id", keep="last")
    files = publish(frame, out_dir, echo=not as_json)
    if as_json:
        print(json.dumps({"cases": len(frame), "files": [str(file) for file in files], "skipped": problems}))
    return ExitCode.LOOK if problems else ExitCode.DONE
