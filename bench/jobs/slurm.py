"""Slurm's own programs: what there is before anything is sent, which jobs are left in the queue, and an end to them."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Sequence

from bench.core.errors import BadInput

_TIMEOUT_S = 60.0
_USUAL_ARRAY = 1001  # Slurm's own default


def require(partition: str | None) -> None:
    """Raises `BadInput` where there is no Slurm, or no such partition."""
    missing = [program for program in ("sbatch", "squeue", "sinfo", "scancel") if shutil.which(program) is None]
    if missing:
        raise BadInput(f"hydra/launcher=slurm: {missing[0]} is not found; run this on a node from which jobs are sent")
    try:
        told = _ask("sinfo", "--noheader", "--format=%R")
    except subprocess.SubprocessError as error:
        raise BadInput(f"hydra/launcher=slurm: Slurm does not answer ({_reason(error)})") from None
    partitions = sorted(set(told.split()))
    if partition is not None and not set(partition.split(",")) <= set(partitions):
        raise BadInput(
            f"hydra.launcher.partition={partition}: no such partition; Slurm has {', '.join(partitions) or 'none'}"
        )


def quiet() -> None:
    """Has submitit say nothing where Slurm keeps no accounts: it would, every other second, and so would sacct."""
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class Quiet(SlurmInfoWatcher):  # type: ignore[misc]
        def _make_command(self) -> list[str] | None:
            command = super()._make_command()
            return None if command is None else ["sh", "-c", 'exec "$@" 2> /dev/null', "sh", *command]

    SlurmJob.watcher = Quiet(delay_s=SlurmJob.watcher._delay_s)
    logging.getLogger("submitit").setLevel(logging.ERROR)


def longest_array() -> int:
    """How many jobs one batch may have."""
    try:
        told = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), re.MULTILINE)
    except (OSError, subprocess.SubprocessError):
        told = None
    return max(1, int(told[1]) if told else _USUAL_ARRAY)


def left(name: str) -> list[str] | None:
    """The jobs of that name that wait or run, with their states; None where Slurm does not answer just now."""
    try:
        return _ask("squeue", "--noheader", "--me", f"--name={name}", "--array", "--format=%i %T").splitlines()
    except (OSError, subprocess.SubprocessError):
        return None


def cancel(name: str) -> None:
    """Ends all jobs of that name."""
    try:
        _ask("scancel", "--me", f"--name={name}")
    except (OSError, subprocess.SubprocessError):
        return


def _ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout


def _reason(error: subprocess.SubprocessError) -> str:
    said: Sequence[str] = str(getattr(error, "stderr", "") or "").strip().splitlines()
    return said[0] if said else str(error)
