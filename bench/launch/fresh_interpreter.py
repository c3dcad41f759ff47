"""Starts children where no fork server can run: a new Python for each."""

from __future__ import annotations

import subprocess
import sys

from bench.launch.launcher import Started


class FreshInterpreter:
    """Starts a new Python for each case: nothing is shared, and each imports the engine (2 to 3 s)."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def start(self, request: str, records_fd: int, log_fd: int) -> Started:
        """Starts a Python that reads `request` from its standard input."""
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

    def close(self) -> None:
        """Nothing is left to end."""

    def kill(self) -> None:
        """Nothing is left to end."""


class StartedProcess:
    """A child that `subprocess` has started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit status as `os.waitpid` gives it. Raises `TimeoutError` after `timeout_s`."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error
        return -code if code < 0 else code << 8
