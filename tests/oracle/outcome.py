"""What one case comes to on a card, in figures that must be the same on the null GPU and on a simulated card."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.core.case import Case
from bench.core.messages import Entered, Message, PhaseDone
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
    """`failed_in` (a phase, None where it fits) and, for each phase, its FIGURES in order.

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
    failed_in = None

    def on_message(message: Message) -> None:
        nonlocal entered
        if isinstance(message, Entered):
            entered = str(message.phase)
        elif isinstance(message, PhaseDone):
            phases[str(message.phase)] = [getattr(message.memory, name) for name in FIGURES]

    with open_machine(case) as machine:
        try:
            scenario.run(case, machine, layouts, on_message)
        except (RuntimeError, AssertionError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not OUT_OF_MEMORY.search(str(error)):
                raise
            failed_in = entered
        if failed_in is not None:
            # What is in use now depends on which frames the error still holds; the peaks do not.
            phases[failed_in] = [asdict(machine.cards[0].memory())[name] for name in FIGURES[2:]]
    return {"failed_in": failed_in, "phases": phases}
