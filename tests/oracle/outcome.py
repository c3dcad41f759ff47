"""What one case comes to on its cards, in figures that must be the same on the null GPU and on simulated cards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.allocator.oom_text import card_of
from bench.core.case import Case
from bench.core.messages import Entered, Message, PhaseDone, Result
from bench.run.verdict import OUT_OF_MEMORY
from bench.worker import scenario
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Unsupported

Open = Callable[[Case], AbstractContextManager[Machine]]
# After each phase, and where a case ended: bytes now, and at their highest since the case began.
FIGURES = (
    "allocated_bytes",
    "reserved_bytes",
    "peak_allocated_bytes",
    "peak_requested_bytes",
    "peak_reserved_bytes",
)


def outcome_of(case: Case, open_machine: Open, layouts: Path) -> dict[str, Any]:
    """`failed_in` (a phase, None where it fits) and, for each phase, its FIGURES in order; of one card after the other.

    Of several cards also `failed_on` (the number of the one that PyTorch's message names, if it names one) and
    `placed`: of each how many modules it has, and the keys and values of how many layers.
    Where the engine refuses the case, or fails in another way, only `unsupported` or `error` with its words.
    """
    try:
        return _outcome_of(case, open_machine, layouts)
    except Unsupported as reason:
        return {"unsupported": str(reason)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _outcome_of(case: Case, open_machine: Open, layouts: Path) -> dict[str, Any]:
    phases: dict[str, list[int]] = {}
    entered = ""
    failed_in = failed_on = None
    placed: list[list[int]] = []

    def on_message(message: Message) -> None:
        nonlocal entered
        if isinstance(message, Entered):
            entered = str(message.phase)
        elif isinstance(message, PhaseDone):
            cards = (message.memory, *message.others)
            phases[str(message.phase)] = [getattr(memory, name) for memory in cards for name in FIGURES]
        elif isinstance(message, Result):
            placed.extend([len(card.modules), card.layers] for card in message.cards)

    with open_machine(case) as machine:
        try:
            scenario.run(case, machine, layouts, on_message)
        except (RuntimeError, AssertionError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not OUT_OF_MEMORY.search(str(error)):
                raise
            failed_in, failed_on = entered, card_of(str(error))
        if failed_in is not None:
            # What is in use now depends on which frames the error still holds; the peaks do not.
            now = [asdict(card.memory()) for card in machine.cards]
            phases[failed_in] = [memory[name] for memory in now for name in FIGURES[2:]]
    outcome: dict[str, Any] = {"failed_in": failed_in, "phases": phases}
    return outcome | {"failed_on": failed_on, "placed": placed} if case.more_devices else outcome
