"""Runs cases of exllamav3 on the null GPU: one JSON case a line on stdin, one JSON outcome a line on stdout.

exllamav3's own Python with its Generator, PyTorch's own operators and allocator. Its extension needs a compiler for
CUDA and half an hour, and Triton a driver: their places take the simulated card's own stand-ins, over PyTorch's tensors
here, so that what the extension itself allocates is held against nothing. A process has one card of one kind
(NULL_GPU_COMPUTE_CAPABILITY, NULL_GPU_MULTIPROCESSORS) and one kind of segments (PYTORCH_CUDA_ALLOC_CONF).
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.utils._triton import has_triton_package

from bench.allocator.limits import case_limits
from bench.core.case import Case
from bench.core.messages import CardFacts, Memory
from bench.scenarios.registry import scenario_of
from bench.worker.engines.exllamav3 import checkpoint
from bench.worker.engines.exllamav3.stand_ins import extension, triton
from bench.worker.interfaces.card import Machine
from bench.worker.simulated.tensor import Observer
from tests.oracle.null import NullGpu
from tests.oracle.outcome import outcome_of

_GRANULE = 2 << 20  # of cudaMalloc
_KINDS = ("allocated", "requested", "reserved")


class NullCuda:
    """What the stand-ins ask of cards: this one's, of PyTorch's allocator and of the null driver."""

    def __init__(self) -> None:
        self.observer = Observer()
        self.cards: list[DriverCard] = []

    def card_named(self, device: torch.device) -> DriverCard:
        """The one card."""
        return self.cards[device.index or 0]


class DriverCard:
    """The part of a simulated card that stand-ins know."""

    index = 0

    def __init__(self, case: Case) -> None:
        self.spec = case.device
        self.limits = case_limits(case.device, None, case)
        self._driver = ctypes.CDLL(None)
        self._taken: set[str] = set()

    def take_beside(self, name: str, size_bytes: int) -> bool:
        """By cudaMalloc, in whole granules, once; whether there was room."""
        if name in self._taken:
            return True
        pointer = ctypes.c_void_p()
        whole = -(-size_bytes // _GRANULE) * _GRANULE
        if self._driver.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(whole)):
            self._driver.cudaGetLastError()
            return False
        self._taken.add(name)
        return True

    def use_cublas(self) -> None:
        """PyTorch's own handle, with its workspace."""
        torch.cuda.current_blas_handle()


class NullCard:
    """What PyTorch counts on it. Autosplit has it forget its peaks at each module: they are kept before."""

    def __init__(self) -> None:
        self._peaks = dict.fromkeys(_KINDS, 0)
        self._reset = torch.cuda.reset_peak_memory_stats

    def _keep(self) -> dict[str, int]:
        stats = torch.cuda.memory_stats(0)
        for kind in _KINDS:
            self._peaks[kind] = max(self._peaks[kind], int(stats.get(f"{kind}_bytes.all.peak", 0)))
        return {kind: int(stats.get(f"{kind}_bytes.all.current", 0)) for kind in _KINDS}

    def forget_peaks(self, device: Any = None) -> None:
        """torch.cuda.reset_peak_memory_stats."""
        self._keep()
        self._reset(0)

    def facts(self) -> CardFacts:
        """Nothing that a case depends on."""
        return CardFacts()

    def memory(self) -> Memory:
        """PyTorch's statistics."""
        now = self._keep()
        peaks = {f"peak_{kind}_bytes": self._peaks[kind] for kind in _KINDS}
        return Memory(now["allocated"], now["reserved"], None, peak_device_bytes=None, **peaks)

    def parts_at_peak(self, resident: Callable[[], Any]) -> dict[str, int | None]:
        """Not compared."""
        return {}


class NullMachine:
    """One null GPU, as a real machine would answer."""

    def __init__(self, case: Case) -> None:
        self.pace = scenario_of(case.scenario).simulated_pace
        torch.cuda.init()
        self.cards = [NullCard()]

    def import_engine(self) -> None:
        """It is."""

    def supports_flash_attention(self) -> bool:
        """Nobody asks."""
        return True

    def model_dir(self, case: Case, layouts: Path) -> Path:
        """A layout without weights."""
        return checkpoint.layout_of(case, layouts)

    def time(self, work: Callable[[], None], repeats: int) -> list[float]:
        """Does the work once."""
        work()
        return []

    def peak_host_bytes(self) -> int | None:
        """Not compared."""
        return None

    def notes(self) -> list[str]:
        """None."""
        return []


@contextmanager
def open_null_machine(case: Case, cuda: NullCuda) -> Iterator[Machine]:
    """The card of `case`, which this process then has for good."""
    gpu = NullGpu()
    gpu.resize(case.device.total_memory_bytes, case.device.context_bytes or 0)
    cuda.cards = [DriverCard(case)]
    machine = NullMachine(case)
    with (
        mock.patch.object(torch, "isfinite", _finite(gpu, torch.isfinite)),
        mock.patch.object(torch, "bincount", _balanced(gpu, torch.bincount)),
        mock.patch.object(torch.cuda, "reset_peak_memory_stats", machine.cards[0].forget_peaks),
    ):
        yield machine


def _finite(gpu: NullGpu, isfinite: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Logits that nobody computed are all right: what comes of `isfinite(logits).all()` is read as true."""

    def finite(logits: torch.Tensor) -> Any:
        found = isfinite(logits)
        if not logits.is_cuda:
            return found

        def all_of() -> torch.Tensor:
            every = found.all()
            gpu.answer(1, 1)
            return every

        return SimpleNamespace(all=all_of)

    return finite


def _balanced(gpu: NullGpu, bincount: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Experts are chosen equally often: bincount reads the least and the largest choice, and its counts are written."""

    def balanced(values: torch.Tensor, *args: Any, minlength: int = 0, **kwargs: Any) -> torch.Tensor:
        if not values.is_cuda:
            return bincount(values, *args, minlength=minlength, **kwargs)
        count = minlength - 1  # the last is for choices outside of this card's experts: none
        for answer in (0, count - 1):
            gpu.answer(values.element_size(), answer)
        counts = bincount(values, *args, minlength=minlength, **kwargs)
        even = [len(range(expert, values.numel(), count)) for expert in range(count)] + [0]
        counts.copy_(torch.tensor(even, dtype=counts.dtype))
        return counts

    return balanced


def main() -> None:
    has_triton_package()  # that there is none is remembered, before the stand-in is there
    cuda = NullCuda()
    made: Any = extension.Extension(cuda)  # type: ignore[arg-type]
    sys.modules.update({extension.NAME: made.module(), **triton.modules()})
    import exllamav3
    import exllamav3.conversion.allocation  # noqa: F401

    torch.cuda._is_in_bad_fork = lambda: False  # a real driver would not survive the forks; the null GPU does
    gc.collect()
    gc.freeze()
    print(json.dumps({"torch": torch.__version__}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            pid = os.fork()
            if not pid:
                outcome = outcome_of(Case.from_json(line), lambda case: open_null_machine(case, cuda), Path(folder))
                print(json.dumps(outcome), flush=True)
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            if status:
                print(json.dumps({"error": f"the process died (status {status})"}), flush=True)


if __name__ == "__main__":
    main()
