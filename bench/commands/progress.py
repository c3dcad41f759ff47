"""What a sweep says while it runs: a live bar in a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.records import Case, Cell
from bench.report.console import console_for
from bench.report.format import duration, size, tokens
from bench.run.boundary import Row
from bench.run.sweep import Watcher

_STYLES = {"fits": "green", "oom": "yellow", "unsupported": "magenta"}


@contextmanager
def watcher_for(stream: TextIO) -> Iterator[Watcher]:
    """A watcher that suits `stream`."""
    console = console_for(stream)
    if console.is_terminal:
        bar = _Bar(console)
        with bar.live:
            yield bar
    else:
        yield _Lines(console)


class _Lines(Watcher):
    """One line for each case."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = self._done = 0

    def prepare(self, done: int, total: int) -> None:
        if done == total:
            self._print(f"{total} recordings made to predict with")

    def begin(self, total: int, known: int) -> None:
        self._total, self._done = total, known
        stored = f", {known} of them stored already" if known else ""
        self._print(f"{total} to do{stored}")

    def finish(self, case: Case, row: Row) -> None:
        self._done += 1
        self._print(f"[{self._done}/{self._total}] {case.title()}: {describe(row)}")

    def probe(self, case: Case, row: Row) -> None:
        self._print(f"    {case.title()}: {describe(row)}")

    def find(self, cell: Cell, boundary: Row) -> None:
        self._done += 1
        self._print(f"[{self._done}/{self._total}] {cell.title()}: {describe_boundary(boundary)}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Bar(Watcher):
    """What is done, verdicts so far, time left, and the cases that run with their phases."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = self._known = self._done = 0
        self._verdicts: Counter[str] = Counter()
        self._running: dict[int, tuple[Case, str]] = {}
        self._preparing = ""
        self._started_at = time.monotonic()
        self.live = Live(console=console, refresh_per_second=8, get_renderable=self._render, transient=True)

    def prepare(self, done: int, total: int) -> None:
        self._preparing = f"recording what the engine allocates, {done}/{total}"

    def begin(self, total: int, known: int) -> None:
        self._preparing = ""
        self._total, self._known = total, known
        self._started_at = time.monotonic()

    def start(self, case: Case) -> None:
        self._running[id(case)] = (case, "start")

    def enter(self, case: Case, phase: str) -> None:
        self._running[id(case)] = (case, phase)

    def finish(self, case: Case, row: Row) -> None:
        self.probe(case, row)
        self._done += 1

    def probe(self, case: Case, row: Row) -> None:
        self._running.pop(id(case), None)
        self._verdicts[str(row["outcome"])] += 1

    def find(self, cell: Cell, boundary: Row) -> None:
        self._done += 1

    def _render(self) -> Table:
        done, total = self._known + self._done, max(1, self._total)
        width = max(10, min(40, self._console.width - 44))
        filled = width * done // total
        elapsed = time.monotonic() - self._started_at
        left = elapsed / self._done * (self._total - done) if self._done else None
        line = Text.assemble(
            ("━" * filled, "green"),
            ("━" * (width - filled), "bright_black"),
            f" {done}/{self._total} cases, ",
            f"{duration(left)} left" if left is not None else "starting",
        )
        grid = Table.grid()
        grid.add_row(line)
        counts = [(f"{count} {name}  ", _STYLES.get(name, "red")) for name, count in sorted(self._verdicts.items())]
        if counts:
            grid.add_row(Text.assemble(*counts))
        for case, phase in list(self._running.values()):
            text = Text(f"{phase:8}{case.title()}", style="bright_black", no_wrap=True, overflow="ellipsis")
            grid.add_row(text)
        return grid


def describe_boundary(boundary: Row) -> str:
    """How far a cell goes in a few words."""
    if boundary["outcome"] not in ("fits", "oom"):
        return f"{boundary['outcome']}: {boundary.get('error')}"
    if boundary["fits_at"] is None:
        return f"nothing fits; {boundary.get('advice') or 'nor would anything smaller'}"
    end = "the model's own limit" if boundary["fails_at"] is None else f"fails at {tokens(boundary['fails_at'])}"
    return f"fits up to {tokens(boundary['fits_at'])}, {end}; {_probes(boundary['probes'])}"


def describe(row: Row) -> str:
    """The verdict of a row in a few words."""
    outcome = str(row["outcome"])
    peak = size(row.get("peak_device_bytes"))
    if outcome == "fits":
        return f"fits, peak {peak}, {duration(row['wall_s'])}"
    if outcome == "oom":
        return f"oom in {row['phase']}, {duration(row['wall_s'])}"
    return f"{outcome} in {row['phase']}: {row.get('error')}"


def _probes(count: int) -> str:
    return f"{count} probe" if count == 1 else f"{count} probes"
