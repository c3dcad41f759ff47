#!/usr/bin/env bash
# submitit takes any preemption of a job of up to ten minutes for a timeout, and gives the job up.
#
# Versions: submitit 1.5.4.
# Expected: a job that is preempted in its first second is put back, whatever `timeout_min` it has.
# Seen:     it has "timed out" once it ran for min(80 % of its limit, its limit less ten minutes), and that is nothing
#           for limits up to ten minutes: the job fails as "timed-out and not checkpointable". With 11 it is started
#           again. (Shown with submitit's local executor, by the signal that Slurm is told to send.)
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment submitit==1.5.4
cat >jobs.py <<'END'
import logging
import os
import signal
import sys
import time
from pathlib import Path

import submitit

logging.getLogger("submitit").setLevel(logging.CRITICAL)


def work(note: str) -> str:
    """Ends at once when it is started for the second time."""
    file = Path(note)
    if file.exists():
        return "started again"
    file.write_text(str(os.getpid()))
    time.sleep(60)
    return "not interrupted"


seen = {}
for minutes in (10, 11):
    executor = submitit.LocalExecutor(folder=f"jobs_{minutes}")
    executor.update_parameters(timeout_min=minutes)
    note = Path(f"pid_{minutes}").resolve()
    job = executor.submit(work, str(note))
    while not (note.exists() and note.read_text()):
        time.sleep(0.1)
    os.kill(int(note.read_text()), signal.SIGUSR2)
    try:
        seen[minutes] = job.result()
    except submitit.core.utils.FailedJobError as error:
        seen[minutes] = "timed out" if "timed-out and not checkpointable" in str(error) else str(error)
    print(f"timeout_min={minutes}, interrupted in its first seconds: {seen[minutes]}")
if seen != {10: "timed out", 11: "started again"}:
    sys.exit("changed: another outcome")
print("as recorded: submitit 1.5.4 cannot put back a job of ten minutes or less")
END
"$python" jobs.py
