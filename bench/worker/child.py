"""The life of one child: one case in, records out, and an exit code that says how it ended."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from bench.allocator.oom_text import card_of
from bench.core import wire
from bench.core.case import Case
from bench.core.lifeline import adopt_orphans
from bench.core.messages import Failure, Memory, Message, Recorded, Versions
from bench.core.requests import (
    InspectCheckpoint,
    LayOut,
    Record,
    Recording,
    Request,
    RunCase,
    SelfTest,
    cases_of,
    read_request,
)
from bench.worker import cards, host_memory
from bench.worker.engines.registry import worker_engine
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Faults, Unsupported

EXIT_DONE, EXIT_FAILED = 0, 3
_MOST_TEXT = 1 << 16  # characters of an error: a message has a limit (launch/channels.py)

Emit = Callable[[Message], None]


def run_request(request: Request, records_fd: int) -> int:
    """Does what `request` asks for, and returns the exit code.

    Every message is one line on `records_fd`, written whole and at once: what was told survives any death.
    """

    def emit(message: Message) -> None:
        os.write(records_fd, (wire.encode(message) + "\n").encode())

    if isinstance(request, RunCase | Record):
        tempfile.tempdir = str(request.layouts)  # which is cleaned up even if this process is killed
    devices = [device for case in cases_of(request) for device in case.devices]
    host_memory.watch(devices, emit, EXIT_FAILED)
    match request:
        case RunCase():
            return _run_case(request, emit)
        case SelfTest():
            return _self_test(request, emit)
        case LayOut():
            return _lay_out(request, emit)
        case InspectCheckpoint():
            return _inspect(request, emit)
        case Record():
            return _record(request, emit)


def _run_case(request: RunCase, emit: Emit) -> int:
    def work(machine: Machine) -> None:
        from bench.worker import scenario

        scenario.run(request.case, machine, request.layouts, emit)

    return _on_machine(request.case, work, emit)


def _self_test(request: SelfTest, emit: Emit) -> int:
    def work(machine: Machine) -> None:
        from bench.worker import self_test

        self_test.run(machine, emit)

    return _on_machine(request.case, work, emit)


def _on_machine(case: Case, work: Callable[[Machine], None], emit: Emit) -> int:
    """Does `work` on the machine of `case`."""
    try:
        import torch

        emit(Versions(torch.__version__, version(case.engine)))
        with cards.open_machine(case) as machine:
            try:
                work(machine)
            except Exception as error:  # while the cards are there to be read
                return _failed(host_memory.explained(error), machine, emit)
    except Exception as error:
        return _failed(host_memory.explained(error), None, emit)
    return EXIT_DONE


def _lay_out(request: LayOut, emit: Emit) -> int:
    case = request.case
    engine = worker_engine(case.engine)
    try:
        with cards.open_machine(case):
            engine.require_readable(case.model.config)
            layout = engine.lay_out(case.model.config, case.bpw, case.head_bits)
    except Exception as error:
        return _failed(host_memory.explained(error), None, emit)
    request.path.write_text(layout.to_json())
    return EXIT_DONE


def _inspect(request: InspectCheckpoint, emit: Emit) -> int:
    """Of a model that the engine refuses nothing is known to be wrong."""
    case = request.case
    assert case.model.path is not None
    found = Faults([], [])
    refused: str | None = None
    try:
        with cards.open_machine(case):
            found = worker_engine(case.engine).faults(Path(case.model.path), case.model.config)
    except Unsupported as error:
        refused = str(error)
    except Exception as error:
        return _failed(host_memory.explained(error), None, emit)
    request.path.write_text(json.dumps({**asdict(found), "refused": refused}))
    return EXIT_DONE


def _record(request: Record, emit: Emit) -> int:
    from bench.trace.parametric import save_reason
    from bench.trace.passes import NoPrediction
    from bench.worker import recorder

    for wanted in request.wanted:
        try:
            if wanted.recording is Recording.TRACE:
                recorder.make_trace(wanted.case, request.layouts).save(wanted.path)
            elif wanted.recording is Recording.LOADING:
                recorder.make_loading(wanted.case, request.layouts).save(wanted.path)
            else:
                recorder.save_tensor_bytes(wanted.path, wanted.case, request.layouts)
        except (OSError, MemoryError):  # of this machine and this moment: the next time it is tried again
            traceback.print_exc()
        except NoPrediction as reason:
            save_reason(wanted.path, str(reason))
        except Exception as error:
            error = host_memory.explained(error)
            save_reason(wanted.path, f"{type(error).__name__}: {error}")
            traceback.print_exc()
        emit(Recorded(wanted.path))
    return EXIT_DONE


def _failed(error: Exception, machine: Machine | None, emit: Emit) -> int:
    """Reports the error that is being handled, with what the cards hold, and returns the exit code."""
    memory: list[Memory] = []
    if machine is not None:
        with suppress(Exception):  # a card in this state may answer nothing any more
            memory = [card.memory() for card in machine.cards]
    first, others = (memory[0], memory[1:]) if memory else (None, [])
    text = str(error)[:_MOST_TEXT]
    emit(Failure(type(error).__name__, text, first, others, card_of(text)))
    traceback.print_exc()
    return EXIT_FAILED


def main(records_fd: int, request_text: str) -> None:
    """Serves one request and ends the process at once: nothing that tears down can change the verdict."""
    adopt_orphans()
    code = run_request(read_request(request_text), records_fd)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
