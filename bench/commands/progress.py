"""What a sweep says while it runs: a live bar in a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.records import Case
from bench.report.console import console_for
from bench.report.format import duration, size
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

    def begin(self, total: int, known: int) -> None:
        self._total, self._done = total, known
        stored = f", {known} of them stored already" if known else ""
        self._print(f"{total} cases{stored}")

    def finish(self, case: Case, row: dict[str, Any]) -> None:
        self._done += 1
        self._print(f"[{self._done}/{self._total}] {case.title()}: {describe(row)}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Bar(Watcher):
    """Cases done, verdicts so far, time left, and the cases that run with their phases."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = self._known = self._done = 0
        self._verdicts: Counter[str] = Counter()
        self._running: dict[int, tuple[Case, str]] = {}
        self._started_at = time.monotonic()
        self.live = Live(console=console, refresh_per_second=8, get_renderable=self._render, transient=True)

    def begin(self, total: int, known: int) -> None:
        self._total, self._known = total, known
        self._started_at = time.monotonic()

    def start(self, case: Case) -> None:
        self._running[id(case)] = (case, "start")

    def enter(self, case: Case, phase: str) -> None:
        self._running[id(case)] = (case, phase)

    def finish(self, case: Case, row: dict[str, Any]) -> None:
        self._running.pop(id(case), None)
        self._done += 1
        self._verdicts[str(row["outcome"])] += 1

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


def describe(row: dict[str, Any]) -> str:
    """The verdict of a row in a few words."""
    outcome = str(row["outcome"])
    peak = size(row.get("peak_device_bytes"))
    if outcome == "fits":
        return f"fits, peak {peak}, {duration(row['wall_s'])}"
    if outcome == "oom":
        return f"oom in {row['phase']}, {duration(row['wall_s'])}"
    return f"{outcome} in {row['phase']}: {row.get('error')}"
