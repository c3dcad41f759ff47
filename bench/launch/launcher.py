"""The interface behind which ways of starting a child differ."""

from __future__ import annotations

from typing import Protocol


class LauncherFailed(Exception):
    """No child could be started, or how it ended can no longer be known. Says nothing about the case."""


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
