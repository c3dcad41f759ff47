"""One request in one child process: start it, watch it, kill it, and say how it ended. `run/verdict.py` judges that."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.core import wire
from bench.core.messages import Entered, Message, PhaseProgress, read_message
from bench.core.process_tree import kill_tree
from bench.core.requests import Request
from bench.launch.channels import Lines, Log
from bench.launch.launcher import Launcher, LauncherFailed, Started

LOG_TAIL_BYTES = 4096
_POLL_S = 0.2
_LEFT_BEHIND_S = 2.0
_GRACE_S = 30.0  # between the last message and the end of the process
_KILLED_S = 10.0  # between its being killed and the word that it has ended


@dataclass
class Ending:
    """How a child ended: its messages, its exit, and the last of what it printed.

    `progress` is how far it said to be in the phase that it entered last; that is not among the messages. `unread` says
    why the first line that was no message is none.
    """

    messages: list[Message] = field(default_factory=list)
    progress: PhaseProgress | None = None
    unread: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    wall_s: float = 0.0
    log_tail: str = ""

    def take(self, message: Message) -> None:
        """Adds the next message of the child."""
        if isinstance(message, PhaseProgress):
            self.progress = message
            return
        if isinstance(message, Entered):
            self.progress = None
        self.messages.append(message)


class Interrupted(Exception):
    """The sweep is stopping; the case was killed and has no verdict."""


def run_isolated(
    launcher: Launcher,
    request: Request,
    log_path: Path,
    timeout_s: float,
    on_message: Callable[[Message], Any] = lambda message: None,
    stop: threading.Event | None = None,
    phase_timeout_s: float | None = None,
) -> Ending:
    """Has a child do what `request` asks for, to its end, whatever that is; `on_message` is called as messages come in.

    It may take `timeout_s`, and each phase that it enters `phase_timeout_s`.

    Raises `Interrupted` when `stop` is set; the child and all that it started are killed first. Raises
    `LauncherFailed` where nothing can be said of what was asked.
    """
    with contextlib.closing(Log(log_path)) as log:
        ending = _watched(launcher, request, log, timeout_s, on_message, stop, phase_timeout_s or math.inf)
    ending.log_tail = _tail(log_path)
    return ending


def _watched(
    launcher: Launcher,
    request: Request,
    log: Log,
    timeout_s: float,
    on_message: Callable[[Message], Any],
    stop: threading.Event | None,
    phase_timeout_s: float,
) -> Ending:
    """How the child ended, but for the last of what it printed."""
    ending = Ending()
    read_fd, write_fd = os.pipe()
    try:
        child = launcher.start(wire.encode(request), write_fd, log.fileno())
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    started_at = time.monotonic()  # excludes the start of the fork server, which many cases share
    try:
        interrupted = not _collect(
            read_fd, child, log, ending, started_at + timeout_s, on_message, stop, phase_timeout_s
        )
        if ending.timed_out or interrupted:  # before its pipe ends, over which it would die by itself
            kill_tree(child.pid)
    except BaseException:
        kill_tree(child.pid)
        with contextlib.suppress(LauncherFailed, TimeoutError):
            child.wait(_KILLED_S)
        raise
    finally:
        os.close(read_fd)
    if not (ending.timed_out or interrupted) and not _has_ended(child, _GRACE_S):
        ending.timed_out = True  # it closed its pipe and does not end
        kill_tree(child.pid)
    try:
        status = child.wait(_KILLED_S)
    except TimeoutError:  # whoever waits for it does not answer
        launcher.kill()
        if interrupted:
            raise Interrupted from None
        raise LauncherFailed("how the child ended is not told; somebody may have stopped the worker's server") from None
    _end_left_behind(child.pid)
    if interrupted:
        raise Interrupted
    ending.wall_s = time.monotonic() - started_at
    if os.WIFSIGNALED(status):
        ending.signal = os.WTERMSIG(status)
    else:
        ending.exit_code = os.WEXITSTATUS(status)
    return ending


def _collect(
    read_fd: int,
    child: Started,
    log: Log,
    ending: Ending,
    deadline: float,
    on_message: Callable[[Message], Any],
    stop: threading.Event | None,
    phase_timeout_s: float,
) -> bool:
    """Reads messages until the child is gone or time is up; False when `stop` came first.

    The child is gone when the pipe ends; a process that the child has started may keep the pipe open, so its exit is
    watched too.
    """
    lines = Lines()
    phase_deadline = math.inf
    has_ended = False  # what it told before is in the pipe all the same
    with selectors.DefaultSelector() as selector:
        selector.register(read_fd, selectors.EVENT_READ)
        while True:
            if stop is not None and stop.is_set():
                return False
            log.keep_short()
            left = min(deadline, phase_deadline) - time.monotonic()
            if left <= 0:
                ending.timed_out = True
                return True
            if not selector.select(0 if has_ended else min(left, _POLL_S)):
                if has_ended:
                    break
                has_ended = _has_ended(child)
                continue
            data = os.read(read_fd, 1 << 16)
            if not data:
                break
            for line in lines.of(data):
                try:
                    message = read_message(line)
                except ValueError as error:
                    ending.unread = ending.unread or str(error)
                    continue
                if isinstance(message, Entered):
                    phase_deadline = time.monotonic() + phase_timeout_s
                ending.take(message)
                on_message(message)
    lines.end()
    ending.unread = ending.unread or lines.refused
    return True


def _has_ended(child: Started, within_s: float = 0.0) -> bool:
    try:
        child.wait(within_s)
    except TimeoutError:
        return False
    return True


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
