"""Work that is shown to repeat, done again by its requests alone.

Where work of one `key` has asked the allocator for the same twice, one after the other, it is not run again: its
requests are put to the allocator in the same order, which serves or refuses them as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.allocator.caching import OutOfMemory
from bench.allocator.requests import NotingAllocator, Requests
from bench.worker.simulated.card import Claim, SimulatedCard
from bench.worker.simulated.tensor import SimulatedTensor

_Results = list[tuple[str, torch.Tensor, torch.Tensor | None, int]]  # name, shape, values, the request that made it


class Tensors(Mapping[str, torch.Tensor]):
    """The results of work that was repeated. They hold their memory; each is made when somebody asks for it."""

    def __init__(self, card: SimulatedCard, results: _Results, claims: dict[int, Claim]) -> None:
        self._results = {name: (card, meta, claims[maker], values) for name, meta, values, maker in results}

    def __getitem__(self, name: str) -> torch.Tensor:
        return SimulatedTensor(*self._results[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)


@dataclass
class Seen:
    """What work of one key asked for, and its results; whether the last two asked for the same.

    `about` is what the worker wants to know of the last one.
    """

    requests: Requests
    results: _Results
    repeats: bool
    about: Any


class Repeats:
    """What was seen so far. Work is done on one card, and on that card's current stream."""

    def __init__(self) -> None:
        self._seen: dict[Any, Seen] = {}

    def known(self, card: SimulatedCard, key: Any) -> Seen | None:
        """What work of that key is known to ask for; None where it is to be run."""
        seen = self._seen.get((card.index, card.stream, key))
        return seen if seen is not None and seen.repeats and _notes(card) is not None else None

    def repeat(self, card: SimulatedCard, seen: Seen) -> Tensors:
        """The results of such work, in memory of their own."""
        allocator = _notes(card)
        assert allocator is not None
        rows = np.empty(len(seen.requests.asked), np.int64)
        try:
            allocator.repeat(seen.requests, rows)
        except OutOfMemory as error:
            # Until somebody has looked at the card, what was there when it was full stays there.
            there = [Claim(allocator, int(row)) for row in rows if row >= 0]  # noqa: F841
            raise card.out_of_memory(error) from None
        return Tensors(card, seen.results, {maker: Claim(allocator, int(rows[maker])) for *_, maker in seen.results})

    def once(self, card: SimulatedCard, key: Any, run: Callable[[], Any], given: Any = None) -> Any:
        """The tensor that `run` makes, or `given` where that is changed in place; run unless the key is known."""
        seen = self.known(card, key)
        if seen is not None:
            made = self.repeat(card, seen)
            return made[""] if made else given
        with self.noted(card, key) as tell:
            result = run()
            tell({} if given is not None and result is given else {"": result}, None)
        return result

    @contextmanager
    def noted(self, card: SimulatedCard, key: Any) -> Iterator[Callable[[dict[str, Any], Any], None]]:
        """Notes what is asked for meanwhile; what is yielded is to be told the results, and what else to remember."""
        allocator = _notes(card)
        if key is None or allocator is None:
            yield lambda tensors, about: None
            return
        told: list[tuple[dict[str, Any], Any]] = []
        allocator.start()
        try:
            yield lambda tensors, about: told.append((tensors, about))
        finally:
            requests = allocator.stop()
        key = (card.index, card.stream, key)
        before = self._seen.pop(key, None)
        for tensors, about in told:
            results = _results(tensors, allocator.makers)
            if results is not None and not requests.foreign:
                same = before is not None and before.requests.asked == requests.asked
                self._seen[key] = Seen(requests, results, same, about)


def can_note(card: SimulatedCard) -> bool:
    """Whether work on the card may be noted, or repeated, now."""
    return _notes(card) is not None


@contextmanager
def noted_requests(card: SimulatedCard) -> Iterator[Requests | None]:
    """What is asked for meanwhile, complete at the end of the block; None where nothing can be noted."""
    allocator = _notes(card)
    if allocator is None:
        yield None
        return
    try:
        yield allocator.start()
    finally:
        allocator.stop()


def _notes(card: SimulatedCard) -> NotingAllocator | None:
    """The allocator, where it can note what it is asked for: not amid other notes, nor while a case is recorded."""
    allocator = card.allocator
    return allocator if isinstance(allocator, NotingAllocator) and not allocator.notes else None


def _results(tensors: dict[str, Any], makers: dict[int, int]) -> _Results | None:
    """How to make the tensors again; None unless they are all that is left of the work's requests."""
    results: _Results = []
    for name, tensor in tensors.items():
        if type(tensor) is not SimulatedTensor or tensor.claim is None or tensor.claim.block not in makers:
            return None
        results.append((name, tensor.meta, tensor.numbers, makers[tensor.claim.block]))
    return results if {maker for *_, maker in results} == set(makers.values()) else None
