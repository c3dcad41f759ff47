"""Streams that are closed, full, or that nobody reads: a command ends with the exit code that it earned."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """\
import os, sys
from bench.core.left_readers import outlive_readers
outlive_readers()
file = open(os.devnull)
print("said", file=sys.stderr)
print("answer", flush=True)
sys.exit(7 if file.fileno() > 2 else 8)
"""


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        ("2>/dev/full", 7, "answer\n"),
        ("2>&-", 7, "answer\n"),
        (">&- 2>&-", 7, ""),
        ("<&- >&- 2>&-", 7, ""),
        (">/dev/full 2>/dev/null", 120, ""),  # an answer that is cut off is told
        (">&- 2>/dev/null", 7, ""),
    ],
)
def test_a_stream_that_takes_nothing_changes_no_exit_code(streams: str, code: int, said: str) -> None:
    shell = f'"$0" -c "$1" {streams}'
    command = ["sh", "-c", shell, sys.executable, _SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == said
    assert done.returncode == code or (code == 120 and done.returncode == 1)
