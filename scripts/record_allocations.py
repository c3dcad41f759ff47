"""Runs cases on a real GPU and keeps what PyTorch's allocator wrote down of itself; or replays what was kept.

    .venv/bin/python scripts/record_allocations.py record DIR device=cuda model=local model.path=MODEL max_seq_len=4096
    .venv/bin/python scripts/record_allocations.py replay DIR

A recording is a file of some 100 kB in DIR, named after its case; one that is there is not made again. The replay says
of each whether the model of the allocator put every block where the real one did, and fails (1) if any is elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.allocator.snapshot import Recording, replay
from bench.config.cases import plan_sweep
from bench.core.case import Case
from bench.core.errors import BadInput
from bench.core.messages import Entered, Message
from bench.launch.environment import child_environment
from bench.launch.launchers import uuids_of
from bench.launch.versions import installed_versions
from bench.report.naming.work import WorkNames

_MAX_ENTRIES = 10_000_000


def main() -> int:
    try:
        command, directory, *overrides = sys.argv[1:]
        if command == "record" and overrides:
            return record(Path(directory), overrides)
        if command == "replay" and not overrides:
            return replay_all(Path(directory))
        if command == "one":
            return record_one(Path(directory))
    except BadInput as error:
        print(f"record_allocations: {error}", file=sys.stderr)
        return 2
    except ValueError:
        pass
    print(__doc__, file=sys.stderr)
    return 2


def record(directory: Path, overrides: list[str]) -> int:
    """Each case in a process of its own, in the environment of a measured one."""
    cases = plan_sweep(overrides).cases
    if not cases or any(case.device.kind != "cuda" for case in cases):
        raise BadInput("a recording is of a real GPU at given lengths: device=cuda max_seq_len=…")
    directory.mkdir(parents=True, exist_ok=True)
    failed = 0
    for case in cases:
        path = directory / f"{case.case_id(installed_versions())}.npz"
        if path.exists():
            print(f"{WorkNames([case]).title(case)}: recorded before")
            continue
        done = subprocess.run(
            [sys.executable, __file__, "one", str(path)],
            input=case.to_json(),
            env=child_environment("cuda", uuids_of(case.devices)),
            text=True,
            check=False,
        )
        failed += done.returncode != 0
        print(f"{WorkNames([case]).title(case)}: {'recorded' if done.returncode == 0 else 'failed'}", flush=True)
    return int(failed > 0)


def record_one(path: Path) -> int:
    """The child of `record`: the case is on standard input."""
    case = Case.from_json(sys.stdin.read())
    import tempfile

    import torch

    from bench.worker import scenario
    from bench.worker.cuda import open_card

    def said(message: Message) -> None:
        if isinstance(message, Entered):
            print(f"  {message.phase}", flush=True)

    with tempfile.TemporaryDirectory() as layouts, open_card(case) as card:
        torch.cuda.memory._record_memory_history("all", context=None, max_entries=_MAX_ENTRIES)
        try:
            scenario.run(case, card, Path(layouts), said)
        except torch.OutOfMemoryError as error:  # how it came to that is worth as much
            print(f"  {str(error).splitlines()[0]}", flush=True)
        (trace, *_) = torch.cuda.memory._snapshot()["device_traces"]
        partial = path.with_suffix(".partial.npz")
        Recording.of_trace(trace).save(partial)
        partial.rename(path)
    sys.stdout.flush()
    os._exit(0)


def replay_all(directory: Path) -> int:
    paths = sorted(path for path in directory.glob("*.npz") if not path.stem.endswith(".partial"))
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
    return int(elsewhere > 0)


if __name__ == "__main__":
    sys.exit(main())
