"""Recorded outcomes of the null GPU, each held against what the simulated cards come to. Usage: compare FILE.json.gz"""

from __future__ import annotations

import functools
import gc
import sys
import tempfile
from pathlib import Path

from bench.core.case import Case
from bench.worker import cards
from bench.worker.engines.registry import worker_engine
from bench.worker.simulated.machine import open_machine
from tests.oracle.outcome import FIGURES, outcome_of
from tests.oracle.recorded import Recorded, read


def differences(recorded: Recorded, layouts: Path) -> list[str]:
    """What the simulated card says otherwise, a line each; nothing where all is equal to the byte."""
    case, theirs = recorded.case, recorded.outcome
    open_ = functools.partial(
        open_machine, engine=worker_engine(case.engine), devices=case.devices, peer_access=recorded.peer_access
    )
    ours = outcome_of(case, open_, layouts)
    if "phases" not in theirs or "phases" not in ours:
        return [] if ours == theirs else [f"{theirs}, simulated {ours}"]
    lines = [
        f"{name} {their}, simulated {ours[name]}"
        for name, their in theirs.items()
        if name != "phases" and their != ours[name]
    ]
    for phase, figures in theirs["phases"].items():
        simulated = ours["phases"].get(phase, figures)
        if len(simulated) != len(figures):
            continue  # only one of them went through it, as `failed_in` says
        names = _figures(len(figures), len(case.devices))
        for name, their, our in zip(names, figures, simulated, strict=True):
            if their != our:
                lines.append(f"{phase}: {name} {their:,}, simulated {our - their:+,}")
    return lines


def _figures(count: int, cards: int) -> list[str]:
    """What the figures of a phase are; where a case failed they are the peaks alone."""
    names = FIGURES[-(count // cards) :]
    return list(names) if cards == 1 else [f"card {index} {name}" for index in range(cards) for name in names]


def named(case: Case) -> str:
    """One line that tells the cases apart."""
    cards = ", ".join(
        f"sm_{(device.compute_capability or '').replace('.', '')} of {device.total_memory_bytes:,} B"
        for device in case.devices
    )
    way = case.split or ("lazy" if case.lazy else "load")
    return (
        f"{case.model.name} {case.bpw:g} bpw head {case.head_bits} {case.cache} {way} {case.attention} "
        f"{case.max_seq_len} x {case.batch_size} by {case.max_input_len} on {cards} {case.scenario} {case.cache_size} "
        f"{case.draft} {case.num_draft_tokens} {case.draft_model and case.draft_model.identity} {case.max_batch_size} "
        f"{case.allocator}"
    )


def main(path: Path) -> int:
    """Prints what differs; 1 where something does."""
    recorded = read(path)
    (engine,) = {each.case.engine for each in recorded}  # a process has one
    cards.preload("simulated", engine)
    gc.freeze()
    with tempfile.TemporaryDirectory() as layouts:
        found = [(each.case, differences(each, Path(layouts))) for each in recorded]
    unequal = [(case, lines) for case, lines in found if lines]
    for case, lines in unequal:
        print("\n  ".join([named(case), *lines]))
    print(f"{len(found) - len(unequal)} of {len(found)} cases equal to the byte on a simulated card")
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
