"""How far a command is: one live line in a terminal, that leaves nothing behind; a few plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column
from rich.text import Text

from bench.answers.display import Display
from bench.report.text.console import console_for
from bench.report.text.units import duration


@contextmanager
def display_for(stream: TextIO) -> Iterator[Display]:
    """A display that suits `stream`."""
    console = console_for(stream)
    if console.is_interactive:
        with LiveDisplay(console) as live:
            yield live
    else:
        yield PlainLines(console)


class PlainLines:
    """Shows only what is said."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, text: str, total: int | None = None, known: int = 0) -> None:
        """Shows nothing."""

    def reach(self, done: int, text: str) -> None:
        """Shows nothing."""

    def say(self, text: str) -> None:
        """Prints a line, as long as it is."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveDisplay(Progress):
    """A spinner, or a bar where the step has a total, then the step in words and the time left; below it `more`."""

    def __init__(self, console: Console, more: Callable[[], Iterable[RenderableType]] = tuple) -> None:
        self._more = more
        super().__init__(_Gauge(console), _Words(), console=console, transient=True, refresh_per_second=8)
        self._step = self.add_task("getting ready", total=None)

    def begin(self, text: str, total: int | None = None, known: int = 0) -> None:
        """Shows another step in place of the last; its time starts now."""
        self.remove_task(self._step)
        self._step = self.add_task(text, total=total, completed=known, known=known)

    def reach(self, done: int, text: str) -> None:
        """Moves the bar."""
        self.update(self._step, completed=done, description=text)

    def say(self, text: str) -> None:
        """Shows nothing: what is live is gone when it is over."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The step's line and what is below it."""
        yield self.make_tasks_table(self.tasks)
        yield from self._more()


class Quarters:
    """Tells whether another quarter is over, for lines that are few."""

    def __init__(self) -> None:
        self._passed = 0

    def another(self, done: int, total: int) -> bool:
        """Whether `done` of `total` is at least a quarter more than when this was last true."""
        before, self._passed = self._passed, 4 * done // total
        return self._passed > before


class _Gauge(ProgressColumn):
    """A bar as wide as the terminal allows; a spinner where no total is known."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._spinner = Spinner("dots", style="progress.spinner")

    def render(self, task: Task) -> RenderableType:
        if task.total is None:
            return self._spinner.render(task.get_time())
        width = max(10, min(40, self._console.width - 44))
        return ProgressBar(task.total, task.completed, width, complete_style="green", finished_style="green")


class _Words(ProgressColumn):
    """The step, and what is left of it if it goes on like this; until something is done, what it took so far."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(task.description)
        elapsed, done = task.elapsed or 0.0, task.completed - task.fields["known"]
        left = f"{duration(elapsed / done * (task.total - task.completed))} left" if done else None
        return Text(f"{task.description}, {left or f'{duration(elapsed)} so far'}")
