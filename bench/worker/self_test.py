"""Takes known sizes on each card of a machine, and tells what the card says of itself, as a case does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from bench.core.messages import Entered, Message, PhaseDone, Started
from bench.core.outcome import Phase
from bench.core.self_test import STEPS, TOO_MUCH_BYTES
from bench.worker.interfaces.card import Machine


def run(machine: Machine, emit: Callable[[Message], None]) -> None:
    """A message for each of `STEPS`; the last request is more than a card has, and raises torch.OutOfMemoryError."""
    emit(Entered(Phase.LOAD))
    first, *others = (replace(card.facts(), properties=None) for card in machine.cards)
    emit(Started("none", machine.notes(), first, others))
    held: dict[tuple[int, str], torch.Tensor] = {}
    for step in STEPS:
        started_at = time.perf_counter()
        for index in range(len(machine.cards)):
            for name, size_bytes in step.sizes_bytes:
                held[index, name] = _taken(index, size_bytes)
            for name in step.frees:
                del held[index, name]
        if step.trims:
            torch.cuda.empty_cache()
        memory, *more = (card.memory() for card in machine.cards)
        emit(PhaseDone(Phase.LOAD, time.perf_counter() - started_at, memory, others=more))
    _taken(0, TOO_MUCH_BYTES)


def _taken(index: int, size_bytes: int) -> torch.Tensor:
    return torch.empty(size_bytes, dtype=torch.uint8, device=f"cuda:{index}")
