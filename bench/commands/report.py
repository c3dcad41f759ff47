"""`vram-bench report`: every table and plot again, from stored rows alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.errors import BadInput, ExitCode
from bench.report.publish import publish
from bench.report.rows import latest
from bench.results.store import read_boundaries, read_cases


def report(results: Path, out_dir: Path, as_json: bool) -> int:
    """Writes the report of everything below `results` to `out_dir`; returns the exit code."""
    if not results.exists():
        raise BadInput(f"--results {results}: no such directory; run a sweep first, or name another")
    stored_cases, problems = read_cases(results)
    stored_boundaries, more = read_boundaries(results)
    problems = list(dict.fromkeys(problems + more))  # both name a file that neither can read
    for problem in problems:
        print(f"vram-bench: skipped {problem}", file=sys.stderr)
    if not stored_cases.num_rows and not stored_boundaries.num_rows:
        raise BadInput(f"--results {results}: no rows in it; run a sweep first, or name another")
    cases = latest(stored_cases.to_pandas(), "case_id", "started_at")
    boundaries = stored_boundaries.to_pandas()
    files = publish(cases, boundaries, out_dir, echo=not as_json)
    if as_json:
        document = {
            "cases": len(cases),
            "boundaries": boundaries["boundary_id"].nunique(),
            "files": [str(file) for file in files],
            "skipped": problems,
        }
        print(json.dumps(document))
    return ExitCode.LOOK if problems else ExitCode.DONE
