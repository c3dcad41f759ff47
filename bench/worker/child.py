"""The life of one child: one case in, records out, and an exit code that says how it ended."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.core.case import Case
from bench.core.messages import Report
from bench.worker.card import Card

EXIT_DONE, EXIT_FAILED = 0, 3


def preload(kind: str) -> None:
    """Imports what every case of a kind of device needs, as far as that leaves the GPU untouched."""
    import torch  # noqa: F401

    if kind == "simulated":
        from bench.worker.simulated import card

        card.preload()


def run_request(request: dict[str, Any], records_fd: int) -> int:
    """Does what `request` asks for, and returns the exit code; `layouts` names a directory for checkpoints.

    A `case` alone is to be run; with `layout`, what is in its checkpoint goes to that path, with `missing`, what it
    lacks; `wanted` are recordings.

    Every record is one line on `records_fd`, written whole and at once: what was reported survives any death.
    """

    def emit(report: Report) -> None:
        os.write(records_fd, (report.to_json() + "\n").encode())

    if "layout" in request:
        return _lay_out(request, emit)
    if "missing" in request:
        return _inspect(request, emit)
    return _run_case(request, emit) if "case" in request else _record(request, emit)


def _run_case(request: dict[str, Any], emit: Callable[[Report], None]) -> int:
    """Runs the case of `request` (`case` as JSON)."""
    case = Case.from_json(request["case"])
    try:
        import torch

        from bench.worker import scenario

        emit(Report("versions", {"torch_version": torch.__version__, "exllamav2_version": version("exllamav2")}))
        with _open_card(case) as card:
            try:
                scenario.run(case, card, Path(request["layouts"]), emit)
            except Exception as error:  # while the card is there to be read
                return _failed(error, card, emit)
    except Exception as error:
        return _failed(error, None, emit)
    return EXIT_DONE


def _lay_out(request: dict[str, Any], emit: Callable[[Report], None]) -> int:
    """Writes what is in the checkpoint of a case (`case` as JSON) to `request["layout"]`."""
    from bench.worker import checkpoint
    from bench.worker.readable import read_config

    case = Case.from_json(request["case"])
    try:
        with _open_card(case):
            read_config(case.model.config)
            layout = checkpoint.lay_out(case.model.config, case.bpw, case.head_bits)
    except Exception as error:
        return _failed(error, None, emit)
    Path(request["layout"]).write_text(layout.to_json())
    return EXIT_DONE


def _inspect(request: dict[str, Any], emit: Callable[[Report], None]) -> int:
    """Writes what the checkpoint of a case (`case` as JSON) lacks to `request["missing"]`.

    Of a model that the engine refuses nothing is known to be missing; why it does is written there, too.
    """
    from bench.worker.engine import Unsupported
    from bench.worker.inspection import missing_tensors

    case = Case.from_json(request["case"])
    assert case.model.path is not None
    missing: list[str] = []
    refused: str | None = None
    try:
        with _open_card(case):
            missing = missing_tensors(Path(case.model.path), case.model.config)
    except Unsupported as error:
        refused = str(error)
    except Exception as error:
        return _failed(error, None, emit)
    Path(request["missing"]).write_text(json.dumps({"missing": missing, "refused": refused}))
    return EXIT_DONE


def _record(request: dict[str, Any], emit: Callable[[Report], None]) -> int:
    """Makes what `request["wanted"]` lists: for each `case` its `program` or its `tensors`, a path each."""
    from bench.trace.parametric import save_reason
    from bench.worker.simulated import recorder

    layouts = Path(request["layouts"])
    for wanted in request["wanted"]:
        case, path = Case.from_json(wanted["case"]), Path(wanted["path"])
        try:
            if wanted["kind"] == "program":
                recorder.make_trace(case, layouts).save(path)
            else:
                recorder.save_tensor_bytes(path, case, layouts)
        except (OSError, MemoryError):  # of this machine and this moment: the next time it is tried again
            traceback.print_exc()
        except Exception as error:
            save_reason(path, f"{type(error).__name__}: {error}")
            traceback.print_exc()
        emit(Report("recorded", {"path": str(path)}))
    return EXIT_DONE


def _open_card(case: Case) -> AbstractContextManager[Card]:
    module = "bench.worker.simulated.card" if case.device.kind == "simulated" else "bench.worker.cuda"
    opened: AbstractContextManager[Card] = importlib.import_module(module).open_card(case)
    return opened


def _failed(error: Exception, card: Card | None, emit: Callable[[Report], None]) -> int:
    """Reports the error that is being handled, with what the card holds, and returns the exit code."""
    data: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if card is not None:
        try:
            data["memory"] = asdict(card.memory())
        except Exception:
            data["memory"] = None  # a card in this state may answer nothing any more
    emit(Report("failure", data))
    traceback.print_exc()
    return EXIT_FAILED


def main(records_fd: int, request_text: str) -> None:
    """Serves one request and ends the process at once: nothing that tears down can change the verdict."""
    code = run_request(json.loads(request_text), records_fd)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
