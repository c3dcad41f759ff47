"""PyTorch's own CUDA allocator on the null GPU, beside our model of it, one random operation after the other.

scripts/oracle.sh allocator --operations 1000000 --seeds 20
scripts/oracle.sh allocator --record tests/oracle/vectors/allocator.npz
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from tests.oracle.null import NullCard, NullGpu
from tests.oracle.operations import (
    ANSWERS,
    MIB,
    Array,
    Operation,
    answers_of_model,
    layout_checksum,
    random_operations,
)

NUM_STREAMS = 4


class RealAllocator:
    """c10::cuda::CUDACachingAllocator, on a card of its own for each sequence."""

    def __init__(self) -> None:
        self._gpu = NullGpu()
        torch.cuda.init()
        self._streams = [0] + [torch.cuda.Stream().cuda_stream for _ in range(NUM_STREAMS - 1)]

    def answers(self, operations: Array, card_bytes: int) -> Array:
        """What it answers to each operation."""
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0)
        assert self._gpu.used_bytes() == 0
        self._gpu.be(NullCard(card_bytes))
        before = self._counts()
        self._base: int | None = None
        live: dict[int, int] = {}
        answers = np.zeros((len(operations), len(ANSWERS)), np.int64)
        for index, (op, value, stream) in enumerate(operations.tolist()):
            address = 0
            if op == Operation.MALLOC:
                try:
                    live[index] = torch._C._cuda_cudaCachingAllocator_raw_alloc(value, self._streams[stream])
                    address = live[index] - self._first_address()
                except torch.OutOfMemoryError:
                    address = -1
            elif op == Operation.FREE:
                if value in live:
                    torch._C._cuda_cudaCachingAllocator_raw_delete(live.pop(value))
            elif op == Operation.EMPTY_CACHE:
                torch.cuda.empty_cache()
            else:
                total_bytes = torch.cuda.get_device_properties(0).total_memory
                torch.cuda.set_per_process_memory_fraction((value + 0.5) / total_bytes)
            stats = torch._C._cuda_memoryStats(0)
            retries, ooms = (now - then for now, then in zip(self._counts(stats), before, strict=True))
            answers[index] = (
                address,
                stats["allocated_bytes"]["all"]["current"],
                stats["requested_bytes"]["all"]["current"],
                stats["reserved_bytes"]["all"]["current"],
                stats["segment"]["all"]["current"],
                retries,
                ooms,
                layout_checksum(self._blocks()),
            )
        for pointer in live.values():
            torch._C._cuda_cudaCachingAllocator_raw_delete(pointer)
        return answers

    def _counts(self, stats: dict | None = None) -> tuple[int, int]:  # type: ignore[type-arg]
        stats = stats or torch._C._cuda_memoryStats(0)
        return stats["num_alloc_retries"], stats["num_ooms"]

    def _first_address(self) -> int:
        if self._base is None:
            self._base = min(segment["address"] for segment in torch._C._cuda_memorySnapshot(None)["segments"])
        return self._base

    def _blocks(self) -> Array:
        found = []
        for segment in torch._C._cuda_memorySnapshot(None)["segments"]:
            stream, small = self._streams.index(segment["stream"]), segment["segment_type"] == "small"
            for block in segment["blocks"]:
                in_use = block["state"] == "active_allocated"
                address = block["address"] - self._first_address()
                requested = block["requested_size"] if in_use else 0
                found.append((address, block["size"], requested, in_use, stream, small))
        return np.array(found, np.int64).reshape(-1, 6)


def sequence(seed: int, length: int) -> tuple[Array, int]:
    """Operations, and the size of the card that they run on."""
    card_bytes = (400 + 97 * (seed % 10)) * MIB
    return random_operations(seed, length, NUM_STREAMS, card_bytes), card_bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--record", type=Path, metavar="FILE.npz", help="write the operations and their answers")
    arguments = parser.parse_args()
    real, length = RealAllocator(), arguments.operations // arguments.seeds
    wrong = ooms = retries = 0
    recorded: dict[str, Array] = {}
    started_at = time.monotonic()
    for seed in range(arguments.seeds):
        operations, card_bytes = sequence(seed, length)
        theirs, ours = real.answers(operations, card_bytes), answers_of_model(operations, card_bytes)
        different = np.flatnonzero((theirs != ours).any(axis=1))
        wrong, ooms, retries = wrong + len(different), ooms + int(theirs[-1, 6]), retries + int(theirs[-1, 5])
        if len(different):
            at = int(different[0])
            print(f"seed {seed}, operation {at}: {operations[at].tolist()} on a card of {card_bytes:,} B")
            for name, their, our in zip(ANSWERS, theirs[at], ours[at], strict=True):
                print(f"  {name:10} PyTorch {their:>16,}   model {our:>16,}{'' if their == our else '   <'}")
        recorded[f"operations_{seed}"], recorded[f"answers_{seed}"] = operations, theirs
        recorded[f"card_bytes_{seed}"] = np.int64(card_bytes)  # type: ignore[assignment]
    took_s = time.monotonic() - started_at
    print(
        f"torch {torch.__version__}: {arguments.seeds * length:,} operations in {arguments.seeds} seeds, "
        f"{retries:,} retries, {ooms:,} times out of memory, {wrong} disagreements ({took_s:.0f} s)"
    )
    if arguments.record:
        recorded["torch_version"] = np.array(torch.__version__)
        np.savez_compressed(arguments.record, **recorded)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
