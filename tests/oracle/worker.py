"""Runs cases on the null GPU: one JSON case a line on stdin, one JSON outcome a line on stdout.

ExLlamaV2 as it is, its own compiled extension, flash-attn's own binding and PyTorch's own allocator. A process has so
many cards of such kinds (NULL_GPU_CARDS, NULL_GPU_COMPUTE_CAPABILITY, NULL_GPU_MULTIPROCESSORS), because PyTorch reads
their properties once and the engine uses all that there are; each case has a fork of its own, on cards of its own size.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from exllamav2 import attn, compat, moe_mlp, stloader

from bench.core.case import Case
from bench.core.messages import CardFacts, Memory
from bench.scenarios.forward import FORWARD
from bench.scenarios.registry import scenario_of
from bench.worker.cuda.machine import CudaMachine
from bench.worker.engines.exllamav2 import checkpoint
from bench.worker.engines.exllamav2.engine import EXLLAMAV2
from bench.worker.engines.exllamav2.sampling_extension import SamplingExtension
from bench.worker.interfaces.card import Machine
from tests.oracle.null import NullGpu
from tests.oracle.outcome import outcome_of

_INT_BYTES = 4
_TABLE_BYTES = 32 << 10  # what the null GPU remembers of its memory; longer tensors need not be read


class OneNullGpu(CudaMachine):
    """What a real card answers, with the layout of a checkpoint in place of one, and as few tokens as simulated."""

    def __init__(self, case: Case) -> None:
        super().__init__(case, EXLLAMAV2, case.devices)
        self.pace = scenario_of(case.scenario).simulated_pace

    def model_dir(self, case: Case, layouts: Path) -> Path:
        return checkpoint.layout_of(case, layouts)


class OneOfSeveral:
    """A card beside others: what PyTorch counts on `cuda:index`."""

    def __init__(self, index: int) -> None:
        self._index = index

    def facts(self) -> CardFacts:
        """Nothing that a case depends on."""
        return CardFacts()

    def memory(self) -> Memory:
        """PyTorch's statistics."""
        stats = torch.cuda.memory_stats(self._index)
        counted = {
            f"{prefix}{kind}_bytes": int(stats[f"{kind}_bytes.all.{which}"])
            for prefix, which in (("", "current"), ("peak_", "peak"))
            for kind in ("allocated", "requested", "reserved")
        }
        del counted["requested_bytes"]
        return Memory(**counted, device_bytes=None, peak_device_bytes=None)

    def parts_at_peak(self, resident: Callable[[], dict[str, Iterable[Any]]]) -> dict[str, int | None]:
        """Not compared."""
        return {}


class NullGpuMachine:
    """Several null GPUs, as a real machine would answer."""

    pace = FORWARD.simulated_pace

    def __init__(self, count: int) -> None:
        torch.cuda.init()
        self.cards = [OneOfSeveral(index) for index in range(count)]

    def import_engine(self) -> None:
        """It is."""

    def supports_flash_attention(self) -> bool:
        """By the compute capabilities that CUDA reports."""
        return all(torch.cuda.get_device_capability(index)[0] >= 8 for index in range(len(self.cards)))

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
def open_null_machine(case: Case) -> Iterator[Machine]:
    """The cards of `case`, which this process then has for good."""
    gpu = NullGpu()
    for index, device in enumerate(case.devices):
        gpu.resize(device.total_memory_bytes, device.context_bytes or 0, index)
    with (
        mock.patch.object(moe_mlp.torch, "where", _balanced(gpu, torch.where)),
        mock.patch.object(stloader.ext_c, "stloader_read", _only_tables(stloader.ext_c.stloader_read)),
        # Of logits that nobody computed it would draw the first token for ever, which n-grams foresee.
        mock.patch.object(stloader.ext_c, "sample_basic", SamplingExtension().sample_basic),
        mock.patch.object(compat, "test_gpu_peer_copy", _copies_arrive(compat.test_gpu_peer_copy)),
        mock.patch.object(torch, "argmax", _of_nothing(torch.argmax)),
    ):
        yield NullGpuMachine(len(case.devices)) if case.more_devices else OneNullGpu(case)


def _of_nothing(argmax: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`torch.argmax` of numbers that nobody computed: the first. A draft model's next token is looked up by it."""

    def first(*args: Any, **kwargs: Any) -> torch.Tensor:
        out = argmax(*args, **kwargs)
        if out.is_cuda:
            out.copy_(torch.zeros(out.shape, dtype=out.dtype))
        return out

    return first


def _copies_arrive(test: Callable[..., bool]) -> Callable[..., bool]:
    """The engine's test of copies between two cards: what it takes is taken, and the numbers, which nobody computed,
    are found to be there.
    """

    def arrive(*devices: torch.device) -> bool:
        test(*devices)
        return True

    return arrive


def _balanced(gpu: NullGpu, where: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.where` of an expert's mask: each is chosen as often as the others, which the simulation assumes too.

    Of the choices 0, 1, 2, ... the first expert gets 0, n, 2n, ...: what it gets follows from its place in all masks.
    """

    def balanced(mask: torch.Tensor, *args: Any) -> Any:
        if not args and mask.is_cuda:
            num_experts, expert = mask.stride(0), mask.storage_offset()
            gpu.answer(_INT_BYTES, len(range(expert, mask.numel(), num_experts)))
        return where(mask, *args)

    return balanced


def _only_tables(read: Callable[..., None]) -> Callable[..., None]:
    """Reading gigabytes of a file without a body would only take time."""

    def only_tables(filename: str, offset: int, size: int, target: torch.Tensor) -> None:
        if size <= _TABLE_BYTES:
            read(filename, offset, size, target)

    return only_tables


def main() -> None:
    # Importing the extension has asked for the GPU. A real driver would not survive the forks; the null GPU does.
    torch.cuda._is_in_bad_fork = lambda: False
    gc.collect()
    gc.freeze()
    print(json.dumps({"torch": torch.__version__, "flash_attn": attn.has_flash_attn}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            pid = os.fork()
            if not pid:
                outcome = outcome_of(Case.from_json(line), open_null_machine, Path(folder))
                print(json.dumps(outcome), flush=True)
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            if status:
                print(json.dumps({"error": f"the process died (status {status})"}), flush=True)


if __name__ == "__main__":
    main()
