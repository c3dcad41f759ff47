"""One case in one child process: start it, watch it, kill it, and say how it ended. The judging is judge.py's."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import bench
from bench.core.case import Case
from bench.core.messages import PhaseProgress, Report

LOG_TAIL_BYTES = 4096
_POLL_S = 0.2
_SERVER_START_S = 300.0
_LEFT_BEHIND_S = 2.0
_GRACE_S = 30.0  # between the last record and the end of the process

# All that the child sees of the user's environment: the rest could change the result, or is nobody's business in a row.
_KEPT = {
    *("PATH", "HOME", "USER", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CPATH", "PYTHONPATH", "VIRTUAL_ENV"),
    *("CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    *("TORCH_EXTENSIONS_DIR", "TORCH_CUDA_ARCH_LIST", "XDG_CACHE_HOME"),
}
# PyTorch's defaults, pinned: an allocator set otherwise is another allocator.
_PINNED = {
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False",
    "CUDA_MODULE_LOADING": "LAZY",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}


@dataclass
class Ending:
    """How a child ended: its records, its exit, and the last of what it printed.

    `progress` is how far it said to be in the phase that it entered last; it is among no records.
    """

    reports: list[Report] = field(default_factory=list)
    progress: PhaseProgress | None = None
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    wall_s: float = 0.0
    log_tail: str = ""


class LauncherFailed(Exception):
    """No child could be started, or how it ended can no longer be known. Says nothing about the case."""


class Interrupted(Exception):
    """The sweep is stopping; the case was killed and has no verdict."""


def child_environment(device_kind: str, device_uuid: str | None) -> dict[str, str]:
    """The whole environment of a child; it is recorded in the row."""
    kept = {k: v for k, v in os.environ.items() if k in _KEPT}
    package_parent = str(Path(bench.__file__).parent.parent)
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, kept.get("PYTHONPATH")]))
    visible = "" if device_kind == "simulated" else (device_uuid or "0")
    threads = {"OMP_NUM_THREADS": "1"} if device_kind == "simulated" else {}
    return {**kept, **_PINNED, **threads, "CUDA_VISIBLE_DEVICES": visible}


def broken_packages(timeout_s: float = 120.0) -> dict[str, str]:
    """What is installed beside the engine and cannot be imported, each with its error; asked of a worker."""
    command = [sys.executable, "-m", "bench.worker", "packages"]
    environment = child_environment("cuda", None)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
        found = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return {}
    return {name: error for name, error in found.items() if error is not None}


class Started(Protocol):
    """A child that runs."""

    pid: int

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit status as `os.waitpid` gives it, once the child has ended; TimeoutError if it does not."""


class Launcher(Protocol):
    """A way of starting children for one device."""

    def start(self, request: str, records_fd: int, log_fd: int) -> Started: ...

    def close(self) -> None: ...


class FreshInterpreter:
    """A new Python for each case: nothing is shared, and the imports are paid for every time."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def start(self, request: str, records_fd: int, log_fd: int) -> Started:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", "case", str(records_fd)],
            stdin=subprocess.PIPE,
            stdout=log_fd,
            stderr=log_fd,
            pass_fds=[records_fd],
            env=self._environment,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(request.encode())
        process.stdin.close()
        return StartedProcess(process)

    def close(self) -> None: ...


class StartedProcess:
    """A child that `subprocess` has started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def wait(self, timeout_s: float | None = None) -> int:
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error
        return -code if code < 0 else code << 8


class ForkServer:
    """A server process that has imported the engine and forks for each case. Restarted if it dies."""

    def __init__(self, environment: dict[str, str], device_kind: str) -> None:
        self._environment = environment
        self._kind = device_kind
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starting: list[Future[_Forked]] = []
        self._statuses: dict[int, Future[int]] = {}

    def start(self, request: str, records_fd: int, log_fd: int) -> Started:
        started: Future[_Forked] = Future()
        with self._lock:
            connection = self._connection or self._start_server()
            self._starting.append(started)
            try:
                socket.send_fds(connection, [request.encode()], [records_fd, log_fd])
            except OSError as error:
                self._starting.remove(started)
                self._connection = None
                raise LauncherFailed(f"the worker's server is gone ({error})") from error
        return started.result()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.shutdown(socket.SHUT_RDWR)
                self._connection = None
            if self._process is not None:
                self._process.wait()
                self._process = None

    def _start_server(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", "serve", str(theirs.fileno()), self._kind],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env=self._environment,
            start_new_session=True,
        )
        theirs.close()
        ours.settimeout(_SERVER_START_S)
        try:
            ready = ours.recv(1 << 16)
        except OSError:
            ready = b""
        except BaseException:  # Ctrl-C: nobody would ever connect to it
            self._process.kill()
            raise
        if not ready:
            self._process.kill()
            assert self._process.stderr is not None
            said = self._process.stderr.read().decode(errors="replace").strip()
            last = said.splitlines()[-1][:500] if said else "it said nothing"
            raise LauncherFailed(f"the worker could not start ({last}); vram-bench doctor looks for the cause")
        ours.settimeout(None)
        self._connection = ours
        threading.Thread(target=self._listen, args=(ours, self._process), daemon=True).start()
        return ours

    def _listen(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        """Hands each answer of the server to whoever waits for it, until the server is gone."""
        while True:
            try:
                packet = connection.recv(1 << 16)
            except OSError:
                packet = b""
            if not packet:
                break
            answer = json.loads(packet)
            if "status" in answer:
                self._statuses.pop(answer["pid"]).set_result(answer["status"])
            else:
                status: Future[int] = Future()
                self._statuses[answer["pid"]] = status
                self._starting.pop(0).set_result(_Forked(answer["pid"], status))
        with self._lock:
            if self._connection is connection:
                self._connection = None
            lost: list[Future[Any]] = [*self._starting, *self._statuses.values()]
            self._starting, self._statuses = [], {}
        for future in lost:
            future.set_exception(LauncherFailed("the worker's server died"))
        connection.close()
        if process.stderr is not None:
            process.stderr.close()


class _Forked:
    def __init__(self, pid: int, status: Future[int]) -> None:
        self.pid = pid
        self._status = status

    def wait(self, timeout_s: float | None = None) -> int:
        return self._status.result(timeout_s)


def make_launcher(device_kind: str, device_uuid: str | None) -> Launcher:
    """The fastest launcher that isolates cases on this platform."""
    environment = child_environment(device_kind, device_uuid)
    return ForkServer(environment, device_kind) if can_fork() else FreshInterpreter(environment)


def can_fork() -> bool:
    """Whether the fork server's way of waiting exists here; some sandboxes name the call and refuse it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def case_request(case: Case, layouts: Path) -> str:
    """Asks a child for one case; checkpoints made for it go below `layouts`."""
    return json.dumps({"case": case.to_json(), "layouts": str(layouts)})


def run_isolated(
    launcher: Launcher,
    request: str,
    log_path: Path,
    timeout_s: float,
    on_report: Callable[[Report], Any] = lambda report: None,
    stop: threading.Event | None = None,
    on_progress: Callable[[PhaseProgress], Any] = lambda progress: None,
) -> Ending:
    """Has a child do what `request` asks for, to its end, whatever that is. `on_report` is called as records come in,
    `on_progress` as it is told how far a phase is.

    Raises `Interrupted` when `stop` is set; the child and all that it started are killed first. Raises
    `LauncherFailed` where nothing can be said of what was asked.
    """
    ending = Ending()
    read_fd, write_fd = os.pipe()
    try:
        with log_path.open("wb") as log:
            child = launcher.start(request, write_fd, log.fileno())
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    started_at = time.monotonic()  # the server's own start is nobody's case
    try:
        interrupted = not _collect(read_fd, child, ending, started_at + timeout_s, on_report, stop, on_progress)
    except BaseException:
        _kill(child.pid)
        with contextlib.suppress(LauncherFailed):
            child.wait()
        raise
    finally:
        os.close(read_fd)
    if ending.timed_out or interrupted:
        _kill(child.pid)
    try:
        status = child.wait(_GRACE_S)
    except TimeoutError:  # it closed its records and lives on
        ending.timed_out = True
        _kill(child.pid)
        status = child.wait()
    _end_left_behind(child.pid)
    if interrupted:
        raise Interrupted
    ending.wall_s = time.monotonic() - started_at
    if os.WIFSIGNALED(status):
        ending.signal = os.WTERMSIG(status)
    else:
        ending.exit_code = os.WEXITSTATUS(status)
    ending.log_tail = _tail(log_path)
    return ending


def _collect(
    read_fd: int,
    child: Started,
    ending: Ending,
    deadline: float,
    on_report: Callable[[Report], Any],
    stop: threading.Event | None,
    on_progress: Callable[[PhaseProgress], Any],
) -> bool:
    """Reads records until the child is gone or time is up; False when `stop` came first.

    The end of the pipe is the sign; but a process that the child left behind may hold it open for ever.
    """
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(read_fd, selectors.EVENT_READ)
        while True:
            if stop is not None and stop.is_set():
                return False
            left = deadline - time.monotonic()
            if left <= 0:
                ending.timed_out = True
                return True
            if not selector.select(min(left, _POLL_S)):
                if _has_ended(child):
                    return True
                continue
            data = os.read(read_fd, 1 << 16)
            if not data:
                return True
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                try:
                    report = Report.from_json(line.decode())
                    progress = PhaseProgress.from_report(report) if report.event == PhaseProgress.EVENT else None
                except (ValueError, KeyError, TypeError):
                    continue  # a line that the child died in
                if progress is not None:
                    ending.progress = progress
                    on_progress(progress)
                    continue
                if report.event == "enter":
                    ending.progress = None
                ending.reports.append(report)
                on_report(report)


def _has_ended(child: Started) -> bool:
    try:
        child.wait(0)
    except TimeoutError:
        return False
    return True


def _kill(pid: int) -> None:
    """Ends a child that has not been waited for, and its whole session."""
    for kill in (os.killpg, os.kill):  # the session is not there yet in a child's first moments
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _end_left_behind(pid: int) -> None:
    """Kills whatever a child that has ended left in its session, and waits for it: it may hold memory of the GPU."""
    deadline = time.monotonic() + _LEFT_BEHIND_S
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
        while time.monotonic() < deadline:
            time.sleep(0.01)
            os.killpg(pid, 0)


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
        return log.read().decode(errors="replace")
