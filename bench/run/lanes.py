"""What of a sweep runs at the same time: one case on a real GPU, on simulated cards as many as there are jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

from bench.core.alternatives import alternatives
from bench.core.case import Case, Search
from bench.launch.launchers import uuids_of

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Way:
    """A case to measure, or a search whose boundary to find, on one of the cards that may do it, and its id there."""

    work: Case | Search
    key: str


@dataclass(frozen=True)
class Task:
    """What is to be done once, on whichever of some equal cards is free: a way for each of them."""

    ways: tuple[Way, ...]

    @staticmethod
    def of(work: Case | Search, versions: dict[str, str | None]) -> Task:
        """`work` on its card, and on those equal to it."""
        each = alternatives(work)
        ids = [one.boundary_id(versions) if isinstance(one, Search) else one.case_id(versions) for one in each]
        return Task(tuple(Way(*pair) for pair in zip(each, ids, strict=True)))

    @property
    def work(self) -> Case | Search:
        """On the first of its cards."""
        return self.ways[0].work

    @property
    def key(self) -> str:
        """Its id on the first of its cards: sweeps that share the cards in the same order know it by that."""
        return self.ways[0].key

    @property
    def lane(self) -> tuple[tuple[str, ...], ...]:
        """The real GPUs of each way."""
        return tuple(uuids_of(way.work.longest.devices) for way in self.ways)

    def done_in(self, known: Collection[str]) -> str | None:
        """The first of its ids that is known; None where none is."""
        return next((way.key for way in self.ways if way.key in known), None)


class Lane:
    """Threads for tasks of the same cards, one a card, or `jobs` where none of them is real."""

    def __init__(self, task: Task, jobs: int) -> None:
        ways = range(len(task.ways)) if any(task.lane) else [0] * jobs
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in ways:
            self._free.put(number)
        self._pool = ThreadPoolExecutor(len(ways))

    def submit(self, do: Callable[[Task, Way], _Result], task: Task) -> Future[_Result]:
        """Does a task on the card that is free first."""
        return self._pool.submit(self._on_a_free_card, do, task)

    def shutdown(self) -> None:
        """Starts no other task, and waits for those that run."""
        self._pool.shutdown(cancel_futures=True)

    def _on_a_free_card(self, do: Callable[[Task, Way], _Result], task: Task) -> _Result:
        number = self._free.get()
        try:
            return do(task, task.ways[number])
        finally:
            self._free.put(number)


def lanes_of(tasks: Sequence[Task], jobs: int) -> dict[tuple[tuple[str, ...], ...], Lane]:
    """A lane for each set of cards."""
    first = {task.lane: task for task in reversed(tasks)}
    return {lane: Lane(task, jobs) for lane, task in first.items()}
