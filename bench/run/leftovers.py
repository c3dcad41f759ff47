"""What a killed sweep has left: cleaned up by the next one that starts, where it is sure that nobody uses it."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from bench.core import scratch
from bench.core.errors import BadInput
from bench.run import claims
from bench.run.locks import LOCK_NAME, claimed
from bench.store.journal import is_journal
from bench.store.parquet_files import UnreadableFile
from bench.store.schema import Kind
from bench.store.store import compact


def clean_up(results_dir: Path) -> None:
    """Compacts the journals of runs that nobody writes to, and deletes their locks, claims, halves of files, and
    temporary folders; a run without a row goes as a whole. What cannot be cleaned up is left as it is: its rows are
    read all the same.
    """
    scratch.remove_dead()
    with contextlib.suppress(OSError):
        claims.remove_unused(results_dir)
    with contextlib.suppress(OSError):
        for name in os.listdir(results_dir):
            with contextlib.suppress(OSError, UnreadableFile, BadInput):
                _clean_up_run(results_dir / name)


def remove_if_empty(run_dir: Path) -> None:
    """Deletes the folder of a run without a row: the logs of cases that never ended, and nothing else."""
    logs = run_dir / "logs"
    if set(os.listdir(run_dir)) <= {logs.name, LOCK_NAME}:
        shutil.rmtree(logs, ignore_errors=True)
        (run_dir / LOCK_NAME).unlink(missing_ok=True)
        run_dir.rmdir()


def _clean_up_run(run_dir: Path) -> None:
    if run_dir.is_symlink() or not run_dir.is_dir():
        return
    names = os.listdir(run_dir)
    if LOCK_NAME not in names and not any(is_journal(name) or _is_half(name) for name in names):
        return
    with claimed(run_dir):
        compact(run_dir)
        for name in names:
            if _is_half(name):
                (run_dir / name).unlink(missing_ok=True)
        remove_if_empty(run_dir)


def _is_half(name: str) -> bool:
    """Whether a file is a half of a parquet file; whoever writes one holds the run's lock."""
    return name.endswith(".partial") and any(name.startswith(f"{kind}.parquet.") for kind in Kind)
