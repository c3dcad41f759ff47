"""The life of one child: one case in, records out, and an exit code that says how it ended."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from contextlib import AbstractContextManager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.records import Case, Report
from bench.worker.card import Card

EXIT_DONE, EXIT_FAILED = 0, 3


def preload(kind: str) -> None:
    """Imports what every case of a kind of device needs, as far as that leaves the GPU untouched."""
    import torch  # noqa: F401

    if kind == "simulated":
        from bench.worker.simulated import card

        card.preload()


def run_case(request: dict[str, Any], records_fd: int) -> int:
    """Runs the case of `request` (`case` as JSON, `layouts` a directory) and returns the exit code.

    Every record is one line on `records_fd`, written whole and at once: what was reported survives any death.
    """

    def emit(report: Report) -> None:
        os.write(records_fd, (report.to_json() + "\n").encode())

    case = Case.from_json(request["case"])
    card: Card | None = None
    try:
        import torch

        from bench.worker import scenario

        emit(Report("versions", {"torch_version": torch.__version__, "exllamav2_version": version("exllamav2")}))
        with _open_card(case) as card:
            scenario.run(case, card, Path(request["layouts"]), emit)
    except Exception as error:
        emit(_failure(error, card))
        traceback.print_exc()
        return EXIT_FAILED
    return EXIT_DONE


def _open_card(case: Case) -> AbstractContextManager[Card]:
    module = "bench.worker.simulated.card" if case.device.kind == "simulated" else "bench.worker.cuda"
    opened: AbstractContextManager[Card] = importlib.import_module(module).open_card(case)
    return opened


def _failure(error: Exception, card: Card | None) -> Report:
    data: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if card is not None:
        try:
            data["memory"] = asdict(card.memory())
        except Exception:
            data["memory"] = None  # a card in this state may answer nothing any more
    return Report("failure", data)


def main(records_fd: int, request_text: str) -> None:
    """Runs one case and ends the process at once: nothing that tears down can change the verdict."""
    code = run_case(json.loads(request_text), records_fd)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
