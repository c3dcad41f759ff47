"""Starts children in milliseconds: a server (bench/worker/forkserver.py) has imported the engine and forks for each."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from bench.core.memory_files import in_memory
from bench.launch.launcher import LauncherFailed, Started

_COMMAND = (sys.executable, "-m", "bench.worker", "serve")
_SERVER_START_S = 300.0
_ANSWER_S = 30.0  # for a fork, which takes milliseconds
_END_S = 5.0


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
        self._link: _Link | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None

    def start(self, request: str, records_fd: int, log_fd: int) -> Started:
        """Forks a child; starts the server first where it does not run. Raises `LauncherFailed`."""
        started: Future[_Forked] = Future()
        with self._lock:
            link = self._link or self._start_server()
            link.starting.append(started)
            try:
                with in_memory(request) as request_fd:  # a packet would cut off what is long
                    socket.send_fds(link.connection, [b"fork"], [request_fd, records_fd, log_fd])
            except OSError as error:
                with contextlib.suppress(ValueError):  # it has heard of that already
                    link.starting.remove(started)
                self._link = None
                raise LauncherFailed(f"the worker's server is gone ({error})") from error
        try:
            return started.result(_ANSWER_S)
        except TimeoutError:
            self.kill()
            raise LauncherFailed("the worker's server does not answer; somebody may have stopped it") from None

    def close(self) -> None:
        """Ends the server and waits for it."""
        with self._lock:
            if self._link is not None:
                with contextlib.suppress(OSError):  # it is gone by itself
                    self._link.connection.shutdown(socket.SHUT_RDWR)
                self._link = None
            listener = self._listener
        if listener is not None:
            listener.join()  # it waits for the server, and takes the lock once more

    def kill(self) -> None:
        """Kills the server and so its children; those who wait for one of them hear `LauncherFailed`."""
        self._link = None  # without the lock, which whoever waits for the server's start holds
        if self._process is not None:
            self._process.kill()

    def _start_server(self) -> _Link:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        begun: Future[subprocess.Popen[bytes]] = Future()
        is_ready: Future[bool] = Future()
        link = _Link(ours)
        listener = threading.Thread(target=self._keep, args=(link, theirs, begun, is_ready), daemon=True)
        listener.start()
        self._process = process = begun.result()
        ours.settimeout(_SERVER_START_S)
        try:
            ready = ours.recv(1 << 16)
        except OSError:
            ready = b""
        except BaseException:  # Ctrl-C while it starts: end it, as no connection to it is left
            process.kill()
            is_ready.set_result(False)
            raise
        if not ready:
            process.kill()
            assert process.stderr is not None
            said = process.stderr.read().decode(errors="replace").strip()
            is_ready.set_result(False)
            last = said.splitlines()[-1][:500] if said else "it said nothing"
            raise LauncherFailed(f"the worker could not start ({last}); vram-bench doctor looks for the cause")
        ours.settimeout(None)
        self._link, self._listener = link, listener
        is_ready.set_result(True)
        return link

    def _keep(
        self,
        link: _Link,
        theirs: socket.socket,
        begun: Future[subprocess.Popen[bytes]],
        is_ready: Future[bool],
    ) -> None:
        """Starts the server, and listens to it until it ends.

        The kernel ends a server whose starter has ended, and goes by the thread: so it is the one that stays.
        """
        try:
            process = subprocess.Popen(
                [*_COMMAND, str(theirs.fileno()), self._kind, self._engine],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env=self._environment,
                start_new_session=True,
            )
        except BaseException as error:
            begun.set_exception(error)
            return
        finally:
            theirs.close()
        begun.set_result(process)
        if is_ready.result():
            self._listen(link)
        else:
            link.connection.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()

    def _listen(self, link: _Link) -> None:
        """Sets the future that belongs to each answer of the server, until the server ends."""
        while True:
            try:
                packet = link.connection.recv(1 << 16)
            except OSError:
                packet = b""
            if not packet:
                break
            answer = json.loads(packet)
            if "status" in answer:
                link.statuses.pop(answer["pid"]).set_result(answer["status"])
            else:
                status: Future[int] = Future()
                link.statuses[answer["pid"]] = status
                link.starting.pop(0).set_result(_Forked(answer["pid"], status))
        with self._lock:
            if self._link is link:
                self._link = None
            lost: list[Future[Any]] = [*link.starting, *link.statuses.values()]
            link.starting.clear()
        for future in lost:
            future.set_exception(LauncherFailed("the worker's server died"))
        link.connection.close()


@dataclass
class _Link:
    """A server's socket, who waits for a child of it to start, and who for the end of one by its number."""

    connection: socket.socket
    starting: list[Future[_Forked]] = field(default_factory=list)
    statuses: dict[int, Future[int]] = field(default_factory=dict)


class _Forked:
    def __init__(self, pid: int, status: Future[int]) -> None:
        self.pid = pid
        self._status = status

    def wait(self, timeout_s: float | None = None) -> int:
        return self._status.result(timeout_s)
