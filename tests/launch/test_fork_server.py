"""The fork server, whose children are a few lines of Python: what happens when it is stopped, killed, or left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bench
from bench.core.requests import RunCase
from bench.launch import fork_server, supervise
from bench.launch.fork_server import ForkServer
from bench.launch.launcher import LauncherFailed
from bench.launch.supervise import Ending, Interrupted, run_isolated
from tests.launch.test_supervise import CASE

# The server itself, but what it preloads and what its children do is a script.
_SERVE = """\
import os, socket, sys, time, types
import bench.worker
from bench.core.lifeline import adopt_orphans, die_with_parent
die_with_parent()
def main(fd, request):
    adopt_orphans()
    exec(os.environ["SCRIPT"])
    os._exit(0)
bench.worker.cards = types.SimpleNamespace(preload=lambda kind, engine: None)  # without torch
bench.worker.child = types.SimpleNamespace(main=main, EXIT_FAILED=3)
from bench.worker import forkserver
forkserver.serve(socket.socket(fileno=int(sys.argv[1])), *sys.argv[2:])
"""
# A process in a session of its own, whose parent has ended; it is `daemon` in what tells of it.
_DAEMON = """\
if not os.fork():
    os.setsid()
    if not os.fork():
        open(os.environ["TOLD"], "w").write(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
while not os.path.exists(os.environ["TOLD"]) or not open(os.environ["TOLD"]).read():
    time.sleep(0.01)
"""
Run = Callable[..., Ending]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ForkServer]]:
    monkeypatch.setattr(fork_server, "_COMMAND", (sys.executable, "-c", _SERVE))
    made: list[ForkServer] = []

    def server(script: str) -> ForkServer:
        root = str(Path(bench.__file__).parent.parent)
        environment = {"PYTHONPATH": root, "SCRIPT": script, "TOLD": str(tmp_path / "told")}
        made.append(ForkServer(environment, "simulated", "exllamav2"))
        return made[-1]

    yield server
    for each in made:
        each.kill()
        each.close()


def _run(server: ForkServer, folder: Path, timeout_s: float = 20.0, stop: threading.Event | None = None) -> Ending:
    return run_isolated(server, RunCase(CASE, folder), folder / "log", timeout_s, stop=stop)


def _is_alive(pid: int) -> bool:
    """Zombies, which somebody else waits for, are dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def dies(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while _is_alive(pid):
        if time.monotonic() > deadline:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.02)
    return True


def _server_pid(server: ForkServer) -> int:
    assert server._process is not None
    return server._process.pid


def test_a_stopped_server_is_killed_and_the_next_child_has_a_new_one(
    tmp_path: Path, make: Callable[[str], ForkServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "_ANSWER_S", 0.5)
    server = make("pass")
    assert _run(server, tmp_path).exit_code == 0
    pid = _server_pid(server)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(LauncherFailed, match="does not answer"):
        _run(server, tmp_path)
    assert dies(pid)
    assert _run(server, tmp_path).exit_code == 0


def test_a_server_that_is_stopped_while_its_child_runs_costs_that_child_alone(
    tmp_path: Path, make: Callable[[str], ForkServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_GRACE_S", 0.3)
    monkeypatch.setattr(supervise, "_KILLED_S", 0.3)
    server = make('os.path.exists(os.environ["TOLD"]) or time.sleep(1) or os.kill(os.getppid(), 19)')
    with pytest.raises(LauncherFailed, match="is not told"):
        _run(server, tmp_path)
    (tmp_path / "told").touch()
    assert _run(server, tmp_path).exit_code == 0


def test_to_kill_a_stopped_server_ends_whoever_waits_for_it(tmp_path: Path, make: Callable[[str], ForkServer]) -> None:
    server = make("pass")
    _run(server, tmp_path)
    os.kill(_server_pid(server), signal.SIGSTOP)
    threading.Timer(0.3, server.kill).start()
    started_at = time.monotonic()
    with pytest.raises(LauncherFailed):
        _run(server, tmp_path)
    assert time.monotonic() - started_at < 10


@pytest.mark.parametrize("way", ["timeout", "stop", "end", "crash"])
def test_no_way_to_end_leaves_a_daemon_behind(tmp_path: Path, make: Callable[[str], ForkServer], way: str) -> None:
    ends = {"end": "pass", "crash": "os.kill(os.getpid(), 11)"}
    server = make(_DAEMON + ends.get(way, "time.sleep(60)"))
    stop = threading.Event()

    def stop_when_told() -> None:
        while not (tmp_path / "told").exists():
            time.sleep(0.01)
        stop.set()

    if way == "stop":
        threading.Thread(target=stop_when_told).start()
    try:
        ending = _run(server, tmp_path, 1.5 if way == "timeout" else 20, stop)
        assert (ending.timed_out, ending.signal) == {
            "timeout": (True, signal.SIGKILL),
            "end": (False, None),
            "crash": (False, signal.SIGSEGV),
        }[way]
    except Interrupted:
        assert way == "stop"
    assert dies(int((tmp_path / "told").read_text()))


_PARENT = """\
import os, sys, threading, time
from pathlib import Path
from bench.launch import fork_server
from bench.launch.fork_server import ForkServer
fork_server._COMMAND = (sys.executable, "-c", sys.argv[1])
server = ForkServer(dict(os.environ), "simulated", "exllamav2")
def start():
    child = server.start("{}", 1, 1)
    print(server._process.pid, child.pid, flush=True)
# A thread of a pool ends before its server.
thread = threading.Thread(target=start)
thread.start()
thread.join()
time.sleep(60)
"""


def test_neither_server_nor_child_outlives_a_killed_parent_even_if_they_are_stopped() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(bench.__file__).parent.parent), "SCRIPT": "time.sleep(60)"}
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, _SERVE], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        time.sleep(0.3)
        assert len(pids) == 2
        assert all(map(_is_alive, pids))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
    assert [dies(pid) for pid in pids] == [True, True]
