"""PyTorch's own CUDA allocator with expandable segments on the null GPU, beside our model of it.

scripts/oracle.sh expandable --operations 120000 --seeds 60
scripts/oracle.sh expandable --record tests/oracle/vectors/expandable.npz

With --record, the operations that are in the file are answered anew. Each sequence has a process of its own: settings
are read once, and no addresses are left from another.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from tests.allocator.expandable_sequences import random_operations
from tests.oracle.expandable_vectors import ANSWERS, Array, Operation, Sequence, answers_of_model, read, write
from tests.oracle.null import NullGpu

_NAMES = {"malloc": Operation.MALLOC, "free": Operation.FREE, "empty_cache": Operation.EMPTY_CACHE}


def random_sequence(seed: int, length: int) -> Sequence:
    """Operations that nobody has answered yet."""
    card_bytes, named = random_operations(seed, length)
    operations = np.zeros((length, 3), np.int64)
    live: list[int] = []
    for row, (name, value, stream) in enumerate(named):
        freed = live.pop(value) if name == "free" else value
        operations[row] = _NAMES.get(name, Operation.LIMIT), freed, stream
        if name == "malloc":
            live.append(row)
    return Sequence(str(seed), card_bytes, operations, np.zeros((length, len(ANSWERS)), np.int64))


def answered(sequence: Sequence) -> Sequence:
    """The same with what PyTorch answers, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sequence.npz"
        write(path, torch.__version__, [sequence])
        environment = {
            **os.environ,
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
            "NULL_GPU_TOTAL_BYTES": str(sequence.card_bytes),
        }
        subprocess.run([sys.executable, "-m", __spec__.name, "--answer", str(path)], env=environment, check=True)
        return read(path)[0]


def answers_of_pytorch(sequence: Sequence) -> Array:
    """c10::cuda::CUDACachingAllocator, in this process, on its first card."""
    gpu = NullGpu()
    torch.cuda.init()
    streams = [0] + [torch.cuda.Stream().cuda_stream for _ in range(int(sequence.operations[:, 2].max()))]
    answers = np.zeros((len(sequence.operations), len(ANSWERS)), np.int64)
    live: dict[int, int] = {}
    base: int | None = None
    for row, (operation, value, stream) in enumerate(sequence.operations.tolist()):
        address, out_of_memory = -1, 0
        if operation == Operation.MALLOC:
            try:
                live[row] = torch._C._cuda_cudaCachingAllocator_raw_alloc(value, streams[stream])
                base = live[row] if base is None else base
                address = live[row] - base
            except torch.OutOfMemoryError:
                out_of_memory = 1
        elif operation == Operation.FREE:
            if value in live:
                torch._C._cuda_cudaCachingAllocator_raw_delete(live.pop(value))
        elif operation == Operation.EMPTY_CACHE:
            torch.cuda.empty_cache()
        else:
            torch.cuda.set_per_process_memory_fraction(min(1.0, (value + 0.5) / sequence.card_bytes))
        stats = torch._C._cuda_memoryStats(0)
        kinds = [stats[f"{kind}_bytes"]["all"] for kind in ("allocated", "requested", "reserved")]
        assert gpu.used_bytes() == kinds[2]["current"], "reserved bytes are what the driver has given out"
        answers[row] = (
            *(out_of_memory, *(kind["current"] for kind in kinds)),
            *(kind["peak"] for kind in kinds),
            *(address, stats["num_alloc_retries"]),
        )
    return answers


def main() -> int:
    """1 if our model answers anything else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=120_000)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--record", type=Path, metavar="FILE.npz", help="answer what is in it anew")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        (sequence,) = read(arguments.answer)
        write(arguments.answer, torch.__version__, [sequence._replace(answers=answers_of_pytorch(sequence))])
        return 0
    length = arguments.operations // arguments.seeds
    asked = read(arguments.record) if arguments.record else [random_sequence(s, length) for s in range(arguments.seeds)]
    found = [answered(sequence) for sequence in asked]
    wrong = 0
    for sequence in found:
        ours = answers_of_model(sequence)
        different = np.flatnonzero((sequence.answers != ours).any(axis=1))
        wrong += len(different)
        if len(different):
            at = int(different[0])
            print(f"sequence {sequence.name}, operation {at}: {sequence.operations[at].tolist()}")
            for name, their, our in zip(ANSWERS, sequence.answers[at], ours[at], strict=True):
                print(f"  {name:14} PyTorch {their:>16,}   model {our:>16,}{'' if their == our else '   <'}")
    answers = np.vstack([sequence.answers for sequence in found])
    print(
        f"torch {torch.__version__}: {len(answers):,} operations in {len(found)} sequences, "
        f"{int(answers[:, 0].sum()):,} times out of memory, {wrong} disagreements"
    )
    if arguments.record:
        write(arguments.record, torch.__version__, found)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
