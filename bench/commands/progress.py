"""What a sweep says while it runs: a live bar in a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.text import Text

from bench.commands.display import LiveDisplay, PlainLines, Quarters
from bench.core.case import Axis, Case, Search
from bench.core.columns import BoundaryRow, CaseRow
from bench.core.messages import PhaseProgress
from bench.core.outcome import Phase
from bench.report.naming.work import WorkNames
from bench.report.text.console import console_for
from bench.report.text.ends import is_lower_bound, is_own_limit
from bench.report.text.units import duration, size, tokens
from bench.run.progress import Progress

_SPARSE_S = 60.0  # between two lines on how far a case is, where they stay
_WAITING = "{} measured by another sweep into this folder: waiting for it"
_ENDING = "interrupted: the cases that run come to their end; once more ends them at once"
_STYLES = {"fits": "green", "oom": "yellow", "unsupported": "magenta"}


@contextmanager
def progress_for(stream: TextIO, works: Sequence[Case | Search]) -> Iterator[Progress]:
    """A watcher that suits `stream`; it names each of `works`, all that is to be done, by what tells it from others."""
    console, names = console_for(stream), WorkNames(works)
    if console.is_interactive:
        bar = _Bar(console, names)
        with bar.display:
            yield bar
    else:
        yield _Lines(console, names)


class _Lines(Progress):
    """One line for each case, those that were run for a boundary indented above it; of a long one, a line a minute."""

    def __init__(self, console: Console, names: WorkNames) -> None:
        self._print = PlainLines(console).say
        self._names = names
        self._total = self._done = 0
        self._quarters = Quarters()
        self._told_at: dict[int, float] = {}  # of each case that runs

    def prepare(self, done: int, total: int) -> None:
        if self._quarters.another(done, total):
            made = _count(total, "recording") if done == total else f"{done} of {total} recordings"
            self._print(f"{made} made to predict with")

    def begin(self, searches: int, cases: int, known: int) -> None:
        self._total, self._done = searches + cases, known
        stored = [f"{known} of them stored already"] if known else []
        self._print(", ".join([*_to_do(searches, cases), *stored]))

    def start(self, case: Case) -> None:
        self._told_at[id(case)] = time.monotonic()

    def advance(self, case: Case, reached: PhaseProgress) -> None:
        now = time.monotonic()
        if now - self._told_at[id(case)] >= _SPARSE_S:
            self._told_at[id(case)] = now
            self._print(f"    {self._names.title(case)}: {reached.phase}, {reached}")

    def finish(self, case: Case, row: CaseRow) -> None:
        self._told_at.pop(id(case), None)
        self._done += 1
        self._print(f"[{self._done}/{self._total}] {self._names.title(case)}: {describe(row)}")

    def probe(self, case: Case, row: CaseRow) -> None:
        self._told_at.pop(id(case), None)
        self._print(f"    {self._names.title(case)}: {describe(row)}")

    def find(self, search: Search, boundary: BoundaryRow) -> None:
        self._done += 1
        self._print(f"[{self._done}/{self._total}] {self._names.title(search)}: {describe_boundary(boundary)}")

    def wait(self, works: int) -> None:
        self._print(_WAITING.format("1 is" if works == 1 else f"{works} are"))

    def end(self) -> None:
        self._print(_ENDING)


class _Bar(Progress):
    """What is done, verdicts so far, time left, and the cases that run with their phases."""

    def __init__(self, console: Console, names: WorkNames) -> None:
        self._names = names
        self._total = self._done = self._probes = 0
        self._counted = ""  # what the bar counts
        self._verdicts: Counter[str] = Counter()
        self._running: dict[int, tuple[Case, str, str]] = {}  # with its phase, and how far that is
        self.display = LiveDisplay(console, self._below)

    def prepare(self, done: int, total: int) -> None:
        if not self._counted:
            self._begin("recordings", total)
        self._reach(done)

    def begin(self, searches: int, cases: int, known: int) -> None:
        self._begin(("done" if cases else "boundaries") if searches else "cases", searches + cases, known)

    def start(self, case: Case) -> None:
        self._running[id(case)] = (case, "start", "")

    def enter(self, case: Case, phase: Phase) -> None:
        self._running[id(case)] = (case, phase, "")

    def advance(self, case: Case, reached: PhaseProgress) -> None:
        self._running[id(case)] = (case, reached.phase, f"{reached}  ")

    def finish(self, case: Case, row: CaseRow) -> None:
        self._running.pop(id(case), None)
        self._verdicts[str(row["outcome"])] += 1
        self._reach(self._done + 1)

    def probe(self, case: Case, row: CaseRow) -> None:
        self._running.pop(id(case), None)
        self._probes += 1

    def find(self, search: Search, boundary: BoundaryRow) -> None:
        self._verdicts[str(boundary["outcome"])] += 1
        self._reach(self._done + 1)

    def wait(self, works: int) -> None:
        self.display.console.print(_WAITING.format("1 is" if works == 1 else f"{works} are"), highlight=False)

    def end(self) -> None:
        self.display.console.print(_ENDING, highlight=False)

    def _begin(self, counted: str, total: int, known: int = 0) -> None:
        self._counted, self._total = counted, total
        self.display.begin("", total, known)
        self._reach(known)

    def _reach(self, done: int) -> None:
        self._done = done
        self.display.reach(done, f"{done}/{self._total} {self._counted}")

    def _below(self) -> Iterator[Text]:
        counts = [(f"{count} {name}  ", _STYLES.get(name, "red")) for name, count in sorted(self._verdicts.items())]
        if self._probes:
            counts.append((_count(self._probes, "probe"), "bright_black"))
        if counts:
            yield Text.assemble(*counts)
        for case, phase, far in list(self._running.values()):
            said = f"{phase:8}{far}{self._names.title(case)}"
            yield Text(said, style="bright_black", no_wrap=True, overflow="ellipsis")


def describe_boundary(boundary: BoundaryRow) -> str:
    """How far a search goes in a few words."""
    fits_at, fails_at = boundary["fits_at"], boundary["fails_at"]
    if boundary["outcome"] not in ("fits", "oom"):
        known = [] if fits_at is None else [f"{tokens(fits_at)} fits"]
        known += [] if fails_at is None else [f"{tokens(fails_at)} fails"]
        return "; ".join([f"{boundary['outcome']}: {boundary.get('error')}", *known])
    if fits_at is None:
        return "; ".join(["nothing fits", *filter(None, [boundary["advice"]])])
    doubt = ["contradictory"] if boundary["contradictory"] else []
    return "; ".join([_reach(boundary), _count(boundary["probes"] or 0, "probe"), *doubt])


def _reach(boundary: BoundaryRow) -> str:
    fits_at, fails_at = tokens(boundary["fits_at"]), boundary["fails_at"]
    if boundary["search_axis"] == Axis.CACHE_SIZE:
        fits_at = f"a cache_size of {fits_at}"
    if fails_at is not None:
        return f"fits up to {fits_at}, fails at {tokens(fails_at)}"
    if is_lower_bound(boundary):
        return f"fits up to {fits_at} at least, where the search ended"
    return (
        f"fits up to {fits_at}, the model's own limit" if is_own_limit(boundary) else f"fits up to {fits_at} at least"
    )


def describe(row: CaseRow) -> str:
    """The verdict of a row in a few words."""
    outcome = str(row["outcome"])
    peak = size(row["peak_device_bytes"])
    if outcome == "fits":
        return f"fits, peak {peak}, {duration(row['wall_s'])}"
    if outcome == "oom":
        return f"oom in {row['phase']}, {duration(row['wall_s'])}"
    return f"{outcome} in {row['phase']}: {row.get('error')}"


def _to_do(searches: int, cases: int) -> list[str]:
    boundaries = "1 boundary to find" if searches == 1 else f"{searches} boundaries to find"
    return [*([boundaries] if searches else []), *([f"{_count(cases, 'case')} to measure"] if cases else [])]


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
