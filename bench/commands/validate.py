"""`vram-bench validate`: simulated cards held against what a real one measured."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.allocator.snapshot import Recording, replay
from bench.commands.command_line import OWN_TABLE
from bench.config.cases import plan_sweep
from bench.core.case import NATIVE
from bench.core.errors import BadInput, ExitCode
from bench.launch.snapshots import record_snapshot
from bench.launch.versions import installed_versions
from bench.report.naming.work import WorkNames


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench validate rows|record|replay …`, or `validate --published [FILE.csv]`."""
    if arguments.published is not None:
        from bench.commands.validate_published import publish

        return publish(None if arguments.published == OWN_TABLE else arguments.published, arguments.page)
    if arguments.what == "record":
        return record(arguments.folder, arguments.overrides)
    if arguments.what == "replay":
        return replay_all(arguments.folder)
    from bench.commands.validate_rows import agreement

    return agreement(arguments.measured, arguments.models, arguments.simulated, arguments.out, arguments.cards)


def record(folder: Path, overrides: Sequence[str]) -> int:
    """Records what `overrides` ask for, each case in a process of its own; one that is there is not made again."""
    cases = plan_sweep(overrides).cases
    if not cases or any(case.device.is_simulated for case in cases):
        raise BadInput("a recording is of a real GPU at given lengths: device=cuda max_seq_len=…")
    if any(case.allocator != NATIVE for case in cases):
        raise BadInput("allocator=expandable: recordings are replayed segment by segment; give allocator=native")
    folder.mkdir(parents=True, exist_ok=True)
    names = WorkNames(cases)
    failed = False
    for case in cases:
        path = folder / f"{case.case_id(installed_versions())}.npz"
        if path.exists():
            print(f"{names.title(case)}: recorded before")
            continue
        made = record_snapshot(case, path)
        failed = failed or not made
        print(f"{names.title(case)}: {'recorded' if made else 'failed'}", flush=True)
    return ExitCode.PROBLEMS if failed else ExitCode.DONE


def replay_all(directory: Path) -> int:
    """Says of each recording whether the model of the allocator put every block where the real one did."""
    paths = sorted(directory.glob("*.npz"))
    if not paths:
        raise BadInput(f"{directory}: no recordings in it")
    print("| recording | events | requests | segments | peak reserved, B | model of the allocator |")
    print("|---|---:|---:|---:|---:|---|")
    elsewhere = 0
    for path in paths:
        replayed = replay(Recording.load(path))
        elsewhere += replayed.different is not None
        print(
            f"| {path.stem} | {replayed.num_events:,} | {replayed.num_requests:,} | {replayed.num_segments:,} "
            f"| {replayed.peak_reserved_bytes:,} | {replayed.different or 'every block where it was'} |"
        )
    return ExitCode.PROBLEMS if elsewhere else ExitCode.DONE
