"""The real engine on several null GPUs, by each of its ways to use them, for simulated cards to be held against."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.core.case import Case
from bench.core.split import Split, SplitBy
from tests.oracle.cases import ENDLESS_BYTES, random_cases
from tests.oracle.engine import Kind, outcomes, record
from tests.oracle.recorded import Recorded

# Compute capability and multiprocessors of the cards of some machines.
ALIKE: tuple[Kind, ...] = (2 * (("8.9", 128),), 2 * (("8.6", 82),), 2 * (("8.0", 108),), 2 * (("9.0", 132),))
MACHINES: tuple[Kind, ...] = (
    *ALIKE,
    (("8.9", 128), ("8.6", 28)),
    3 * (("8.6", 82),),
    (("8.6", 28), ("8.9", 128), ("12.0", 170)),
)
# Those of tests.oracle.cases that ExLlamaV2 can divide.
DIVISIBLE = (
    *("llama_3_1_8b", "llama_3_1_70b", "qwen2_5_7b", "qwen2_5_32b", "tinyllama_1_1b"),
    *("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Glm4ForCausalLM"),
)
_GIB, _MIB = 1 << 30, 1 << 20
_RESERVE_MIB = (192, 64, 64)  # autosplit's own, of each card
_KEPT_WHILE_LOADING_MIB = 256  # and on the card that it fills


def on_machines(cases: Sequence[Case], found: Sequence[dict[str, Any]], seed: int) -> list[Case]:
    """Cases that fit on one card, on two or three that are about too small for one, filled in turn or by gpu_split."""
    random_ = random.Random(seed)
    return [
        _filled_in_turn(case, outcome["phases"]["decode"][-1], random_)
        for case, outcome in zip(cases, found, strict=True)
        if outcome.get("failed_in", "") is None
    ]


def _filled_in_turn(case: Case, reserved_bytes: int, random_: random.Random) -> Case:
    # On Hopper PyTorch gives SDPA to cuDNN, as on one card.
    kind = random_.choice([each for each in MACHINES if case.attention != "sdpa" or each[0][0] != "9.0"])
    shares = [random_.uniform(0.45, 1.05) for _ in kind[1:]] + [random_.uniform(0.7, 1.1)]
    if random_.random() < 0.4:
        shares = shares[-1:] * len(kind)
    sizes = [int(reserved_bytes * share) for share in shares]
    by = random_.choice((SplitBy.AUTO, SplitBy.AUTO, SplitBy.GPU_SPLIT))
    if by is SplitBy.GPU_SPLIT:
        told = [round(size / _GIB * random_.uniform(0.2, 0.8), 3) for size in sizes[:-1]]
        return _on(case, kind, sizes, Split(by, (*told, round(sizes[-1] / _GIB, 3))))
    others = len(kind) - 1
    given = random_.choice((None, None, (96, *[0] * others), (0, *[0] * others), (300, *[200] * others)))
    kept_mib = [each + _KEPT_WHILE_LOADING_MIB for each in given or _RESERVE_MIB[: len(kind)]]
    if len(set(sizes)) == 1:
        kept_mib = kept_mib[:1] * len(kind)
    sizes = [size + kept * _MIB for size, kept in zip(sizes, kept_mib, strict=True)]
    split = Split(by, None, None if given is None else tuple(size * _MIB for size in given))
    return _on(case, kind, sizes, split)


def divided(count: int, seed: int) -> list[Case]:
    """Random cases on endless cards that divide each layer, evenly or as they are told."""
    random_ = random.Random(seed)
    cases = []
    for case in random_cases(count, seed, DIVISIBLE):
        kind = random_.choice(MACHINES)
        told = tuple(float(random_.choice((4, 8, 12, 24))) for _ in kind) if random_.random() < 0.6 else None
        quantised = replace(case, attention="flash", bpw=min(case.bpw, 8.0), head_bits=case.head_bits or 6)
        cases.append(_on(quantised, kind, [ENDLESS_BYTES] * len(kind), Split(SplitBy.TENSOR_PARALLEL, told)))
    return cases


def on_full_machines(cases: Sequence[Case], found: Sequence[dict[str, Any]], seed: int) -> list[Case]:
    """Cases that fit, on cards of about what each had reserved, and of less."""
    random_ = random.Random(seed)
    smaller = []
    for case, outcome in zip(cases, found, strict=True):
        if outcome.get("failed_in", "") is not None:
            continue
        figures = outcome["phases"]["decode"]
        sizes: list[int] = []
        for first in range(0, len(figures), len(figures) // len(case.devices)):
            allocated, _, reserved = figures[first + 2 : first + 5]
            if not reserved:  # nothing is there
                sizes.append(case.devices[len(sizes)].total_memory_bytes)
                continue
            share = random_.choice((0.55, 0.9, 0.98, 1.0, 1.0, 1.02, 1.1))
            between = int(allocated + (reserved - allocated) * share)
            sizes.append(random_.choice((between, int(reserved * share))))
        smaller.append(_sized(case, sizes))
    return smaller


def _on(case: Case, kind: Kind, sizes: Sequence[int], split: Split) -> Case:
    cards = [
        replace(case.device, compute_capability=capability, multi_processor_count=num_sms)
        for capability, num_sms in kind
    ]
    lazy = split.by is SplitBy.AUTO
    return _sized(replace(case, device=cards[0], more_devices=tuple(cards[1:]), split=str(split), lazy=lazy), sizes)


def _sized(case: Case, sizes: Sequence[int]) -> Case:
    first, *more = (replace(card, total_memory_bytes=size) for card, size in zip(case.devices, sizes, strict=True))
    return replace(case, device=first, more_devices=tuple(more))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=120, help="random cases on cards that are filled in turn")
    parser.add_argument("--divided", type=int, default=70, help="random cases by tensor parallelism")
    parser.add_argument("--full", type=int, default=130, help="of them once more on cards that are full")
    parser.add_argument("--every", type=int, default=1, help="which of them are written: 6 for every sixth")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--record", type=Path, required=True, metavar="FILE.json.gz")
    arguments = parser.parse_args()
    started_at = time.monotonic()
    jobs, seed = os.cpu_count() or 1, arguments.seed
    alone = [replace(case, lazy=False) for case in random_cases(arguments.cases, seed)]
    cases = on_machines(alone, outcomes(alone, jobs), seed) + divided(arguments.divided, seed)
    recorded = _with_and_without_peer_access(cases, jobs)
    full = on_full_machines([each.case for each in recorded], [each.outcome for each in recorded], seed)
    random.Random(seed).shuffle(full)
    recorded += _with_and_without_peer_access(full[: arguments.full], jobs)
    record(arguments.record, recorded[:: arguments.every], started_at)
    return 0


def _with_and_without_peer_access(cases: Sequence[Case], jobs: int) -> list[Recorded]:
    """The one half of the cases so, the other so."""
    recorded = []
    for peer_access in (False, True):
        half = cases[int(peer_access) :: 2]
        answers = outcomes(half, jobs, peer_access)
        recorded += [Recorded(*each, peer_access) for each in zip(half, answers, strict=True)]
    return recorded


if __name__ == "__main__":
    sys.exit(main())
