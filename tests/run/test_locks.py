"""Turns on a GPU, taken by processes of several users."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.core.errors import BadInput
from bench.run import locks
from bench.run.locks import require_reservable, reserved

ROOT = Path(__file__).parent.parent.parent
_NOBODY = 65534


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everybody may write to, and where nobody may delete another's files."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # what is above tmp_path is closed to others
        folder = Path(name)
        folder.chmod(0o1777)
        monkeypatch.setattr(locks, "_SHARED", folder)
        yield folder


def test_one_case_at_a_time_runs_on_a_gpu_and_no_file_stays(shared: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with reserved(["GPU-a"], threading.Event()):
            order.append("second")

    with reserved(["GPU-b", "GPU-a"], threading.Event()):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.5)
        order.append("first")
        assert sorted(os.listdir(shared)) == ["vram-bench-GPU-a.lock", "vram-bench-GPU-b.lock"]
    thread.join(10)
    assert (order, os.listdir(shared)) == (["first", "second"], [])


def test_a_stop_ends_the_waiting() -> None:
    stop = threading.Event()
    with reserved(["GPU-a"], stop):
        threading.Timer(0.2, stop.set).start()
        with reserved(["GPU-a"], stop):
            assert stop.is_set()


_OTHER = """\
import os, sys, threading
os.umask(0o077)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from bench.run import locks
locks._SHARED = Path(sys.argv[2])
locks.tempfile.tempdir = "/nowhere"
os.setuid(int(sys.argv[3]))
stop = threading.Event()
with locks.reserved(["GPU-a"], stop):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("owner", [_NOBODY, 0])
def test_users_take_turns_whoever_made_the_file(shared: Path, owner: int) -> None:
    (shared / "vram-bench-GPU-a.lock").touch(0o644)
    os.chown(shared / "vram-bench-GPU-a.lock", owner, owner)
    other = subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(ROOT), str(shared), str(_NOBODY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "mine\n"
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with reserved(["GPU-a"], stop):
        assert stop.is_set()  # it was waited for
    other.communicate("")
    with reserved(["GPU-a"], threading.Event()):
        pass
    assert other.returncode == 0


def test_a_new_lock_can_be_had_by_all_whatever_the_umask(shared: Path) -> None:
    before = os.umask(0o077)
    try:
        with reserved(["GPU-a"], threading.Event()):
            assert (shared / "vram-bench-GPU-a.lock").stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def test_a_lock_that_cannot_be_opened_is_named_with_what_to_do(shared: Path) -> None:
    (shared / "vram-bench-GPU-a.lock").symlink_to("elsewhere")
    with pytest.raises(BadInput, match=r"vram-bench-GPU-a\.lock: cannot be opened .*its owner"):
        require_reservable(["GPU-a"])
