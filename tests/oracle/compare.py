"""Recorded outcomes of the null GPU, each held against what the simulated card comes to. Usage: compare FILE.json.gz"""

from __future__ import annotations

import gc
import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from bench.core.case import Case
from bench.worker import cards
from tests.oracle.outcome import FIGURES, outcome_of


class Recorded(NamedTuple):
    """A case, and what it came to on the null GPU."""

    case: Case
    outcome: dict[str, Any]


def read(path: Path) -> list[Recorded]:
    """The cases of a file that `tests.oracle.engine` has written."""
    document = json.loads(gzip.decompress(path.read_bytes()))
    return [Recorded(Case.from_json(each["case"]), each["outcome"]) for each in document["cases"]]


def differences(recorded: Recorded, layouts: Path) -> list[str]:
    """What the simulated card says otherwise, a line each; nothing where all is equal to the byte."""
    theirs, ours = recorded.outcome, outcome_of(recorded.case, cards.open_machine, layouts)
    if "phases" not in theirs or "phases" not in ours:
        return [] if ours == theirs else [f"{theirs}, simulated {ours}"]
    lines = []
    if ours["failed_in"] != theirs["failed_in"]:
        lines.append(f"fails in {theirs['failed_in']}, simulated in {ours['failed_in']}")
    for phase, figures in theirs["phases"].items():
        for name, their, our in zip(FIGURES[-len(figures) :], figures, ours["phases"].get(phase, figures), strict=True):
            if their != our:
                lines.append(f"{phase}: {name} {their:,}, simulated {our - their:+,}")
    return lines


def named(case: Case) -> str:
    """One line that tells the cases apart."""
    return (
        f"{case.model.name} {case.bpw:g} bpw head {case.head_bits} {case.cache} {'lazy' if case.lazy else 'load'} "
        f"{case.attention} {case.max_seq_len} x {case.batch_size} by {case.max_input_len} on sm_"
        f"{(case.device.compute_capability or '').replace('.', '')} of {case.device.total_memory_bytes:,} B"
    )


def main(path: Path) -> int:
    """Prints what differs; 1 where something does."""
    cards.preload("simulated", "exllamav2")
    gc.freeze()
    recorded = read(path)
    with tempfile.TemporaryDirectory() as layouts:
        found = [(each.case, differences(each, Path(layouts))) for each in recorded]
    unequal = [(case, lines) for case, lines in found if lines]
    for case, lines in unequal:
        print("\n  ".join([named(case), *lines]))
    print(f"{len(found) - len(unequal)} of {len(found)} cases equal to the byte on a simulated card")
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
