"""Runs cases on the null GPU: one JSON case a line on stdin, one JSON outcome a line on stdout.

ExLlamaV2 as it is, its own compiled extension, flash-attn's own binding and PyTorch's own allocator. A process is cards
of one kind (NULL_GPU_COMPUTE_CAPABILITY, NULL_GPU_MULTIPROCESSORS), because PyTorch reads a card's properties once;
each case has a fork of its own, on a card of its own size.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from exllamav2 import attn, moe_mlp, stloader

from bench.core.case import Case
from bench.scenarios.fill import DECODE_TOKENS, WARM_UP_TOKENS
from bench.worker.cuda import CudaCard
from bench.worker.engines.exllamav2 import checkpoint
from bench.worker.engines.exllamav2.engine import EXLLAMAV2
from bench.worker.interfaces.card import Machine
from tests.oracle.null import NullGpu
from tests.oracle.outcome import outcome_of

_INT_BYTES = 4
_TABLE_BYTES = 32 << 10  # what the null GPU remembers of its memory; longer tensors need not be read


class NullGpuCard(CudaCard):
    """What a real card answers, with the layout of a checkpoint in place of one, and as few tokens as simulated."""

    warm_up_tokens = WARM_UP_TOKENS
    decode_tokens = DECODE_TOKENS

    def model_dir(self, case: Case, layouts: Path) -> Path:
        return checkpoint.layout_of(case, layouts)


@contextmanager
def open_null_card(case: Case) -> Iterator[Machine]:
    """The card of `case`, which this process then is for good."""
    gpu = NullGpu()
    gpu.resize(case.device.total_memory_bytes, case.device.context_bytes or 0)
    with (
        mock.patch.object(moe_mlp.torch, "where", _balanced(gpu, torch.where)),
        mock.patch.object(stloader.ext_c, "stloader_read", _only_tables(stloader.ext_c.stloader_read)),
    ):
        yield NullGpuCard(case, EXLLAMAV2)


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
                outcome = outcome_of(Case.from_json(line), open_null_card, Path(folder))
                print(json.dumps(outcome), flush=True)
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            if status:
                print(json.dumps({"error": f"the process died (status {status})"}), flush=True)


if __name__ == "__main__":
    main()
