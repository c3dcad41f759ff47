"""Starts children in milliseconds: a server (bench/worker/forkserver.py) has imported the engine and forks for each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import Any

from bench.launch.launcher import LauncherFailed, Started

_SERVER_START_S = 300.0


def can_fork() -> bool:
    """Whether the fork server's way of waiting exists here; some sandboxes name the call and refuse it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


class ForkServer:
    """A server process that has imported the engine and forks for each case. Restarted if it dies."""

    def __init__(self, environment: dict[str, str], device_kind: str, engine: str) -> None:
        self._environment = environment
        self._kind = device_kind
        self._engine = engine
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._starting: list[Future[_Forked]] = []
        self._statuses: dict[int, Future[int]] = {}

    def start(self, request: str, records_fd: int, log_fd: int) -> Started:
        """Forks a child; starts the server first where it does not run. Raises `LauncherFailed`."""
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
        """Ends the server and waits for it."""
        with self._lock:
            if self._connection is not None:
                self._connection.shutdown(socket.SHUT_RDWR)
                self._connection = None
            if self._process is not None:
                self._process.wait()
                self._process = None
            listener = self._listener
        if listener is not None:
            listener.join()  # it takes the lock once more

    def _start_server(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", "serve", str(theirs.fileno()), self._kind, self._engine],
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
        except BaseException:  # Ctrl-C while it starts: end it, as no connection to it is left
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
        self._listener = threading.Thread(target=self._listen, args=(ours, self._process), daemon=True)
        self._listener.start()
        return ours

    def _listen(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        """Sets the future that belongs to each answer of the server, until the server ends."""
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
