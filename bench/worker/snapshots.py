"""Keeps what PyTorch's allocator writes down of itself while a case runs on a real GPU."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch

from bench.allocator.snapshot import Recording
from bench.core.case import Case
from bench.core.messages import Entered, Message
from bench.worker import cards, scenario

_MAX_ENTRIES = 10_000_000


def record(case: Case, path: Path) -> None:
    """Runs `case`, writes the recording to `path`, and ends the process; an OOM is recorded like anything else.

    Of several cards each has its own: `NAME-card1.npz` and so on, beside that of the first.
    """

    def said(message: Message) -> None:
        if isinstance(message, Entered):
            print(f"  {message.phase}", flush=True)

    with tempfile.TemporaryDirectory() as layouts, cards.open_machine(case) as machine:
        torch.cuda.memory._record_memory_history("all", context=None, max_entries=_MAX_ENTRIES)
        try:
            scenario.run(case, machine, Path(layouts), said)
        except torch.OutOfMemoryError as error:  # how it came to that is worth as much
            print(f"  {str(error).splitlines()[0]}", flush=True)
        traces = torch.cuda.memory._snapshot()["device_traces"][: len(machine.cards)]
        for number, trace in reversed(list(enumerate(traces))):  # the first last: where it is, all are
            Recording.of_trace(trace).save(path.with_stem(f"{path.stem}-card{number}") if number else path)
    sys.stdout.flush()
    os._exit(0)
