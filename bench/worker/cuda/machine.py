"""The real machine: the GPUs of one case, in its order."""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from bench import nvml
from bench.core.case import Case
from bench.core.device import DeviceSpec
from bench.engines.registry import engine_of
from bench.scenarios.base import Pace
from bench.worker.ballast import Ballast, reserve_all_but
from bench.worker.cuda.card import CudaCard, read
from bench.worker.cuda.workspaces import Workspaces
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Engine


class CudaMachine:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves visible: `cuda:0` is the first of `devices`, and so on.

    `foreign_processes` is what NVML saw of each before anything of ours was there; `ballasts` are held to make them
    smaller, None for a card that is not.
    """

    decode_tokens = 32

    def __init__(
        self,
        case: Case,
        engine: Engine,
        devices: Sequence[DeviceSpec],
        foreign_processes: Sequence[nvml.Reading | None] = (),
        ballasts: Sequence[Ballast | None] = (),
    ) -> None:
        self._engine = engine
        self.pace = Pace(engine_of(case.engine).warm_up_tokens, self.decode_tokens, case.repeats)
        self._foreign_processes = foreign_processes
        self._ballasts = ballasts or [None] * len(devices)
        self._switched_off: list[str] = []
        before = [read(device.uuid) for device in devices]  # of all, before a context is on any
        torch.cuda.init()  # type: ignore[no-untyped-call]
        workspaces = Workspaces()
        self.cards = [
            CudaCard(index, device.uuid, reading, workspaces, limit_bytes, ballast)
            for index, (device, reading, limit_bytes, ballast) in enumerate(
                zip(devices, before, case.limits_bytes, self._ballasts, strict=True)
            )
        ]

    # The interface of `bench.worker.interfaces.card.Machine`

    def import_engine(self) -> None:
        """Imports it; what was switched off for that is noted."""
        self._switched_off = self._engine.import_engine()

    def supports_flash_attention(self) -> bool:
        """By the compute capabilities that CUDA reports."""
        return all(torch.cuda.get_device_capability(card.index)[0] >= 8 for card in self.cards)

    def model_dir(self, case: Case, layouts: Path) -> Path:
        """The checkpoint's own. Raises `FileNotFoundError` where there are no weights."""
        if not case.model.has_weights or case.model.path is None:
            weights = engine_of(case.engine).weights.quantised
            raise FileNotFoundError(
                f"{case.model.name}: a real GPU needs {weights} weights (model=local model.path=DIR)"
            )
        return Path(case.model.path)

    def time(self, work: Callable[[], None], repeats: int) -> list[float]:
        """Seconds of each repeat, with all cards synchronised before and after."""
        samples = []
        for _ in range(repeats):
            self._synchronize()
            started = time.perf_counter()
            work()
            self._synchronize()
            samples.append(time.perf_counter() - started)
        return samples

    def peak_host_bytes(self) -> int | None:
        """The most that the process had resident (getrusage counts KiB on Linux)."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

    def notes(self) -> list[str]:
        """Other processes on the GPUs, switched-off packages, the ballast, and whether several reach each other."""
        return [
            *(note for index, reading in enumerate(self._foreign_processes) for note in self._others(index, reading)),
            *self._switched_off,
            *(
                f"vram_limit{self._of(index)} kept by {ballast.held_bytes:,} B that others hold"
                for index, ballast in enumerate(self._ballasts)
                if ballast is not None
            ),
            *_reach(len(self.cards)),
        ]

    def _others(self, index: int, reading: nvml.Reading | None) -> list[str]:
        # Those that were there first: in a container the driver's process numbers are not ours to compare with.
        pids = [str(process.pid) for process in (reading.processes or ())] if reading else []
        where = "the GPU" if len(self.cards) == 1 else f"card {index}"
        return [f"other processes on {where}: {', '.join(pids)}"] if pids else []

    def _of(self, index: int) -> str:
        return "" if len(self.cards) == 1 else f" of card {index}"

    def _synchronize(self) -> None:
        for card in self.cards:
            torch.cuda.synchronize(card.index)


def _reach(count: int) -> list[str]:
    """Whether several cards read each other's memory, as CUDA says; else copies go through the host's."""
    apart = [pair for pair in itertools.combinations(range(count), 2) if not torch.cuda.can_device_access_peer(*pair)]
    if count > 1 and not apart:
        return ["cards reach each other's memory"]
    return [f"cards {one} and {other} do not reach each other's memory" for one, other in apart]


@contextmanager
def open_machine(case: Case, engine: Engine, devices: tuple[DeviceSpec, ...]) -> Iterator[Machine]:
    """The GPUs of `case`; the parent has made them the only visible ones, in this order.

    Raises `CannotReserve` where one cannot be made as small as its limit.
    """
    foreign_processes = [read(device.uuid) for device in devices]
    with ExitStack() as held:
        ballasts: list[Ballast | None] = []
        for device, limit_bytes in zip(devices, case.limits_bytes, strict=True):
            ballast = None
            if limit_bytes is not None and case.vram_limit_by == "process":
                ballast = reserve_all_but(limit_bytes, device.uuid)
                held.callback(ballast.release)
            ballasts.append(ballast)
        yield CudaMachine(case, engine, devices, foreign_processes, ballasts)
