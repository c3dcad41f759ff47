"""exllamav3's own Python on simulated cards, held against what it does over PyTorch's own allocator, to the byte.

`exllamav3_references.csv` says where the figures come from. All of them are replayed by

    PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False python -m tests.worker.exllamav3_references [PART OF A NAME]

(The engine sets that of PyTorch itself where nobody has; which allocator is simulated, the references say.)
"""

from __future__ import annotations

import csv
import gc
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

from bench.config import compose
from bench.config.models import resolve_model
from bench.core.case import Case
from bench.core.device import DeviceSpec
from bench.worker.engines.exllamav3.engine import EXLLAMAV3
from bench.worker.engines.exllamav3.generator import Passes
from bench.worker.engines.exllamav3.stand_ins.buffers import Buffers
from bench.worker.simulated.card import Peaks, SimulatedCard
from bench.worker.simulated.machine import SimulatedMachine, open_machine

FILE = Path(__file__).with_name("exllamav3_references.csv")
FIGURES = ("allocated", "requested", "reserved", "peak_allocated", "peak_requested", "peak_reserved", "device_bytes")
PROMPT, WARM_UP, DECODE = 16, 2, 4
_CARDS = {
    "4090": DeviceSpec("a", "simulated", "A", 25769803776, "8.9", 128, 1e12, 404750336, "assumed"),
    "3060": DeviceSpec("b", "simulated", "B", 12489588736, "8.6", 28, 1e12, 122473677, "assumed"),
}
_CACHES = {"FP16": "FP16", "8/8": "Q8", "4/4": "Q4", "6/5": "k6v5"}


class Reference(NamedTuple):
    """A case, and its rows: one a phase and card."""

    gpu: str
    warm_up: bool
    allocator: str
    model: str
    bpw: float
    cache: str
    max_num_tokens: int
    load: str
    cards: int
    rows: list[dict[str, str]]

    @property
    def name(self) -> str:
        """All of it in a line."""
        return " ".join(str(field) for field in self[:-1])

    @property
    def case(self) -> Case:
        """As the product has it."""
        device = _CARDS[self.gpu]
        settings = compose.validate(
            compose.combinations([f"model={self.model}", f"bpw={self.bpw}", "max_seq_len=4096"])[0]
        )
        return Case(
            model=resolve_model(settings.model, self.bpw, "exllamav3"),
            device=device,
            bpw=self.bpw,
            head_bits=6,
            cache=_CACHES[self.cache],
            lazy=self.load == "autosplit",
            attention="auto",
            max_seq_len=self.max_num_tokens,
            batch_size=1,
            max_input_len=2048,
            engine="exllamav3",
            more_devices=(device,) * (self.cards - 1),
            allocator=self.allocator,
        )


def references() -> list[Reference]:
    """All of them, in the file's order."""
    with FILE.open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    found = []
    for key, group in groupby(rows, lambda row: tuple(row.values())[:9]):
        gpu, warm_up, allocator, model, bpw, cache, tokens, load, cards = key
        found.append(
            Reference(
                gpu, warm_up == "1", allocator, model, float(bpw), cache, int(tokens), load, int(cards), list(group)
            )
        )
    return found


@contextmanager
def as_they_were_made() -> Iterator[None]:
    """What the references took otherwise than the engine does.

    Their arena has room for positions, which they never give; and their stand-in takes the int8 workspace at any
    product, where the C++ takes it for one or two rows of up to 5 bits (exl3_gemv_int8.cu).
    """

    def arena(self: Passes, rows: int, width: int, with_positions: bool) -> Any:
        if (rows, width) not in self._arenas:
            self._arenas[rows, width] = torch.zeros(rows * (width + 2), dtype=torch.int32), {}
        return self._arenas[rows, width]

    def gemm(self: Buffers, x: torch.Tensor, inputs: int, outputs: int, bits: float, mul1: bool) -> None:
        self.locks(x)
        self.int8_workspace(self.card(x))

    with (
        mock.patch.object(Passes, "_arena", arena),
        mock.patch.object(Passes, "with_positions", False),
        mock.patch.object(Buffers, "gemm", gemm),
    ):
        yield


def replay(reference: Reference, layouts: Path) -> list[dict[str, Any]]:
    """The same rows, of a session of the product."""
    case = reference.case
    rows: list[dict[str, Any]] = []
    phase = "cache"

    def done(machine: SimulatedMachine, outcome: str = "ok") -> None:
        for index, card in enumerate(machine.cards):
            rows.append({"phase": phase, "card": index, "outcome": outcome, **_figures(card)})

    with as_they_were_made(), open_machine(case, EXLLAMAV3, case.devices) as machine:
        try:
            session = EXLLAMAV3.session(case, machine)
            session.open(EXLLAMAV3.layout_of(case, layouts))
            session.build()
            done(machine)
            phase = "load"
            session.load()
            done(machine)
            if reference.warm_up:
                phase = "warm-up"
                session.fill(PROMPT)
                session.decode(PROMPT, WARM_UP)
                done(machine)
            phase = "prefill"
            session.fill(case.max_seq_len - DECODE)
            done(machine)
            phase = "decode"
            session.decode(case.max_seq_len - DECODE, DECODE)
            done(machine)
        except Exception as error:
            if "memory" not in str(error) and "VRAM" not in str(error):
                raise
            done(machine, type(error).__name__)
            error.__traceback__ = None  # and with it all that the frames held
        session = None  # type: ignore[assignment]
        gc.collect()
    return rows


def _figures(card: SimulatedCard) -> dict[str, int]:
    """Of a phase alone: the peaks begin again."""
    memory, stats = card.memory(), card.allocator.stats
    assert memory.device_bytes is not None
    figures = (
        memory.allocated_bytes,
        stats.requested_bytes,
        memory.reserved_bytes,
        memory.peak_allocated_bytes,
        memory.peak_requested_bytes,
        memory.peak_reserved_bytes,
        memory.device_bytes - card.limits.context_bytes,
    )
    card.allocator.reset_peak()
    card._peaks_before = Peaks()
    return dict(zip(FIGURES, figures, strict=True))


def differences(reference: Reference, rows: list[dict[str, Any]]) -> list[str]:
    """Each figure that is not the reference's, in words."""
    found = []
    if [(row["phase"], int(row["card"]), row["outcome"]) for row in reference.rows] != [
        (row["phase"], row["card"], row["outcome"]) for row in rows
    ]:
        return [f"ended otherwise: {rows[-1]['phase']} {rows[-1]['outcome']}"]
    for wanted, row in zip(reference.rows, rows, strict=True):
        for name in FIGURES:
            if int(wanted[name]) != row[name]:
                found.append(f"{row['phase']} cuda:{row['card']} {name}: {row[name]:,}, not {int(wanted[name]):,}")
    return found


def main(part: str = "") -> int:
    equal = total = 0
    with tempfile.TemporaryDirectory() as layouts:
        for reference in references():
            if part not in reference.name:
                continue
            began = time.process_time()
            found = differences(reference, replay(reference, Path(layouts)))
            total, equal = total + 1, equal + (not found)
            seconds = time.process_time() - began
            print(
                f"{'DIFFERS' if found else 'equal  '} {reference.name} {seconds:.1f} s", *found, sep="\n  ", flush=True
            )
    print(f"{equal} of {total} cases equal")
    return 0 if equal == total > 0 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
