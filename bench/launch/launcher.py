"""The interface of the ways to start a child."""

from __future__ import annotations

from typing import Protocol


class LauncherFailed(Exception):
    """No child could be started, or its exit status was lost. It says nothing about the case."""


class Started(Protocol):
    """A child that runs."""

    pid: int

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit status as `os.waitpid` gives it, once the child has ended; TimeoutError if it does not."""


class Launcher(Protocol):
    """A way of starting children for one device."""

    def start(self, request: str, records_fd: int, log_fd: int) -> Started:
        """Starts a child for `request`; it writes messages to `records_fd` and output to `log_fd`."""

    def close(self) -> None:
        """Ends what is kept running between children."""

    def kill(self) -> None:
        """Ends it at once, even where it is stopped; children that it has started are lost."""
