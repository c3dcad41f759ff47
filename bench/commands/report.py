"""`vram-bench report`: every table and plot again, from stored rows alone."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from bench.analysis.asked import DEFAULT_CONTEXTS
from bench.commands.advice_options import headroom_of, quality_of
from bench.config.units import parse_tokens
from bench.core.columns import DOCUMENTS
from bench.core.errors import BadInput, ExitCode
from bench.report.json_document import as_json_document
from bench.report.kinds import latest_of_each_host
from bench.report.publish import ReportOptions, publish
from bench.report.rows import shared
from bench.report.tables.recommendations import as_frame
from bench.share.opened import Opened, opened
from bench.store.store import read_boundaries, read_cases, read_memory, release_memory, to_be_shown


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench report [DIR…] [--out DIR] [--context N] [--headroom SIZE] [--quality FILE] [--json]`."""
    given: list[Path] = arguments.results
    if arguments.out is None and len(given) == 1 and given[0].is_file():
        raise BadInput(f"{given[0]}: it is a file; give the folder that it is in, or --out DIR for its report")
    out_dir = arguments.out or (given[0] / "report" if len(given) == 1 else Path("report"))
    typed = (arguments.context, arguments.headroom, arguments.quality)
    return report(given, out_dir, arguments.json, *typed)


def report(
    results: Sequence[Path],
    out_dir: Path,
    as_json: bool,
    contexts: str | None = None,
    headroom: str | None = None,
    quality: Path | None = None,
) -> int:
    """Writes the report of everything below all of `results` to `out_dir`; returns the exit code.

    `contexts` (lengths with commas between), `headroom` (a size) and `quality` (a CSV) are as they were typed.
    """
    options = ReportOptions(_contexts(contexts), headroom_of(headroom), quality_of(quality))
    gc.disable()  # many rows are millions of objects and hardly a cycle; to look for one takes a fifth of the time
    try:
        with opened(results) as folders:
            return _report(folders, out_dir, as_json, options)
    finally:
        gc.enable()


def _report(folders: Opened, out_dir: Path, as_json: bool, options: ReportOptions) -> int:
    cases, boundaries, problems = stored_rows(folders)
    memory = partial(stored_memory, folders, problems)
    published = publish(cases, boundaries, out_dir, echo=not as_json, options=options, memory=memory)
    if as_json:
        head = {
            "cases": len(cases),
            "boundaries": boundaries["boundary_id"].nunique(),
            "files": [str(file) for file in published.files],
            "skipped": problems,
        }
        rows = {
            "boundary_rows": latest_of_each_host(boundaries, "boundary_id", "finished_at"),
            "case_rows": cases,
            "recommendations": as_frame(published.advised, options.quality),
        }
        for text in as_json_document(head, rows):
            sys.stdout.write(text)
    return ExitCode.PROBLEMS if problems else ExitCode.DONE


def stored_rows(results: Opened) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Cases and boundaries below `results`, and a line for each file that could not be read.

    Each case once, and where it was measured on several hosts once for each.
    """
    stored_cases, problems = to_be_shown(read_cases(*results.folders, without=DOCUMENTS))
    stored_boundaries, more = to_be_shown(read_boundaries(*results.folders))
    problems = list(dict.fromkeys(map(results.as_given, problems + more)))  # both name a file that neither can read
    for problem in problems:
        print(f"vram-bench: skipped {problem}", file=sys.stderr)
    if not stored_cases.num_rows and not stored_boundaries.num_rows:
        raise BadInput(f"--results {results}: no rows in it; run a sweep first, or name another")
    cases = stored_cases.to_pandas(split_blocks=True, self_destruct=True)
    del stored_cases
    cases["notes"] = shared(cases["notes"])
    release_memory()
    return latest_of_each_host(cases, "case_id", "started_at"), stored_boundaries.to_pandas(), problems


def stored_memory(results: Opened, problems: list[str]) -> pd.DataFrame:
    """Each card of cases on several below `results`; what could not be read is told, and added to the `problems`."""
    stored, found = to_be_shown(read_memory(*results.folders))
    memory: pd.DataFrame = stored.to_pandas()
    new = [problem for problem in map(results.as_given, found) if problem not in problems]
    for problem in new:
        print(f"vram-bench: skipped {problem}", file=sys.stderr)
    problems += new
    return memory


def _contexts(text: str | None) -> tuple[int, ...]:
    if text is None:
        return DEFAULT_CONTEXTS
    try:
        lengths = [parse_tokens(word) for word in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1 or max(lengths) >= 1 << 40:
        raise BadInput(f"--context {text}: lengths in tokens, with commas between: --context 8192,32k")
    return tuple(sorted(set(lengths)))
