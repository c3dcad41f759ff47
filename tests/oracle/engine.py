"""The real engine on the null GPU: what it takes in every case, for the simulated card to be held against."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from bench.core.case import EXPANDABLE, Case
from tests.oracle.cases import on_a_card_of, random_cases
from tests.oracle.recorded import Recorded
from tests.worker.architectures import ARCHITECTURES

SEGMENT_BYTES = 2 << 20
TOWERS = [name for name, more in ARCHITECTURES.items() if "vision_config" in more]


class Kind(NamedTuple):
    """What a worker is started for: an engine, segments, and what each card can compute with, and by how many."""

    engine: str
    allocator: str
    cards: tuple[tuple[str, int], ...]
    total_bytes: int | None = None  # of the first, where PyTorch must know it: it remembers that of its first look


_WORKERS = {"exllamav2": "tests.oracle.worker", "exllamav3": "tests.oracle.exllamav3_worker"}


def outcomes(cases: Sequence[Case], jobs: int, peer_access: bool = False) -> list[dict[str, Any]]:
    """What each case comes to on the null GPU (`outcome_of`), in order; `jobs` workers at a time."""
    kinds: dict[Kind, list[int]] = {}
    for index, case in enumerate(cases):
        of_each = tuple((card.compute_capability or "8.0", card.multi_processor_count or 1) for card in case.devices)
        # exllamav3's autosplit is bounded by a share of the card (torch.cuda.set_per_process_memory_fraction).
        is_bounded = case.engine == "exllamav3" and case.lazy
        kind = Kind(case.engine, case.allocator, of_each, case.device.total_memory_bytes if is_bounded else None)
        kinds.setdefault(kind, []).append(index)
    found: list[dict[str, Any]] = [{} for _ in cases]

    def work(kind: Kind) -> None:
        answers = _ask_worker(kind, peer_access, [cases[index] for index in kinds[kind]])
        for index, answer in zip(kinds[kind], answers, strict=True):
            found[index] = answer

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, kinds))
    return found


def _ask_worker(kind: Kind, peer_access: bool, cases: Sequence[Case]) -> list[dict[str, Any]]:
    machine = {
        "NULL_GPU_CARDS": str(len(kind.cards)),
        "NULL_GPU_COMPUTE_CAPABILITY": ",".join(capability.replace(".", "") for capability, _ in kind.cards),
        "NULL_GPU_MULTIPROCESSORS": ",".join(str(num_sms) for _, num_sms in kind.cards),
        "PYTORCH_CUDA_ALLOC_CONF": f"expandable_segments:{kind.allocator == EXPANDABLE}",
        "NULL_GPU_PEER_ACCESS": str(int(peer_access)),
        **({} if kind.total_bytes is None else {"NULL_GPU_TOTAL_BYTES": str(kind.total_bytes)}),
    }
    done = subprocess.run(
        [sys.executable, "-m", _WORKERS[kind.engine]],
        input="".join(case.to_json() + "\n" for case in cases),
        env={**os.environ, **machine},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    about, *answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not about.get("flash_attn", True):
        raise RuntimeError("flash-attn's binding is not there: build it with scripts/oracle.sh build")
    return answers


def record(path: Path, recorded: Sequence[Recorded], started_at: float) -> None:
    """Writes what was found, for `tests.oracle.compare`, and says how much that is."""
    took_s = time.monotonic() - started_at
    failed = [each.outcome["error"] for each in recorded if "error" in each.outcome]
    print(f"{len(recorded)} cases on the null GPU in {took_s:.0f} s; {len(failed)} ended in an error of the engine")
    for text in failed:
        print(f"  {text}")
    versions = {name: version(name) for name in ("torch", *sorted({each.case.engine for each in recorded}))}
    cases = [
        {**(each._asdict() if each.peer_access else {"outcome": each.outcome}), "case": each.case.to_json()}
        for each in recorded
    ]
    path.write_bytes(gzip.compress(json.dumps({"versions": versions, "cases": cases}).encode(), mtime=0))


def on_full_cards(cases: Sequence[Case], found: Sequence[dict[str, Any]]) -> list[Case]:
    """Cases that fit, on cards of about what they reserved, and of less: cached segments must go, or all is over."""
    smaller = []
    for index, (case, outcome) in enumerate(zip(cases, found, strict=True)):
        if outcome.get("failed_in", "") is not None:
            continue
        allocated, _, reserved = outcome["phases"]["decode"][2:]
        share = (0.55, 0.8, 0.93, 0.98, 1.0, 1.02, 0.99)[index % 7]
        size = int(allocated + (reserved - allocated) * share) if index % 2 else int(reserved * share)
        smaller.append(on_a_card_of(case, size))
    return smaller


def on_the_smallest_cards(cases: Sequence[Case], found: Sequence[dict[str, Any]], jobs: int) -> list[Case]:
    """Cases that fit, each on the smallest card on which it does, and on one that is a segment smaller."""
    fitting = [
        (case, outcome["phases"]["decode"])
        for case, outcome in zip(cases, found, strict=True)
        if outcome.get("failed_in", "") is None
    ]
    bounds = [(figures[2] // SEGMENT_BYTES - 1, -(-figures[4] // SEGMENT_BYTES)) for _, figures in fitting]
    while any(enough - short > 1 for short, enough in bounds):
        tried = [(short + enough) // 2 for short, enough in bounds]
        probes = [on_a_card_of(case, size * SEGMENT_BYTES) for (case, _), size in zip(fitting, tried, strict=True)]
        fits = [outcome["failed_in"] is None for outcome in outcomes(probes, jobs)]
        bounds = [
            (short, size) if fit else (size, enough)
            for (short, enough), size, fit in zip(bounds, tried, fits, strict=True)
        ]
    return [
        on_a_card_of(case, size * SEGMENT_BYTES)
        for (case, _), bound in zip(fitting, bounds, strict=True)
        for size in bound
    ]


def seeing(count: int, seed: int) -> list[Case]:
    """Random cases of the models that have a vision tower, with it."""
    cases = []
    for case in random_cases(count, seed, TOWERS):
        # With a bias the engine wants one of Mistral's patch merger, too, which no model has.
        config = {**case.model.config, "multimodal_projector_bias": "Mistral3" not in case.model.name}
        cases.append(replace(case, model=replace(case.model, config=config), vision=True))
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=350, help="random cases on cards without a limit")
    parser.add_argument("--full", type=int, default=150, help="of them once more on cards that are full")
    parser.add_argument("--smallest", type=int, default=25, help="of them on the smallest card, and a smaller one")
    parser.add_argument("--vision", action="store_true", help="of models with a vision tower, which is loaded")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", type=Path, required=True, metavar="FILE.json.gz")
    arguments = parser.parse_args()
    started_at = time.monotonic()
    jobs = os.cpu_count() or 1
    make = seeing if arguments.vision else random_cases
    cases = make(arguments.cases, arguments.seed)
    found = outcomes(cases, jobs)
    more = on_full_cards(cases, found)[: arguments.full]
    more += on_the_smallest_cards(cases[-arguments.smallest :], found[-arguments.smallest :], jobs)
    cases, found = cases + more, found + outcomes(more, jobs)
    record(arguments.record, [Recorded(*each) for each in zip(cases, found, strict=True)], started_at)
    return 0


if __name__ == "__main__":
    sys.exit(main())
