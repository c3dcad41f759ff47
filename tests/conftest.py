"""The program as a user calls it."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from bench import nvml
from bench.__main__ import main
from bench.config import models
from bench.forecast.shipped import Shipped
from tests.servers import KeptServers

# A shell that runs the tests in the background has Ctrl-C ignored, and so would everything that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Hundreds of programs are started: each would compile all of the sources again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A machine that is busy is slow: no test is wrong for that.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_finish() -> None:
    """What is loaded by now stays to the end: it is never looked through for garbage again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def imported_stays() -> None:
    """So does what the modules before this one have imported: PyTorch alone costs a quarter of a second each time."""
    gc.collect()
    gc.freeze()


Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache and no files of the user's own, for all tests of a session and their subprocesses."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all that share the session
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        environment.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        yield


@pytest.fixture
def nothing_shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No recording comes with the program: where none can be made, nothing is predicted."""
    monkeypatch.setattr("bench.forecast.library.Shipped", partial(Shipped, tmp_path / "no-recordings"))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Runs `python -m bench ARGUMENTS…` in an empty directory."""

    def run(*arguments: str, cwd: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bench", *arguments],
            cwd=cwd,
            env={**os.environ, "COLUMNS": "80", **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def servers(own_cache: None) -> Iterator[KeptServers]:
    """The workers of all commands that are called in this process."""
    kept = KeptServers()
    yield kept
    kept.end()


@pytest.fixture(scope="session")
def called(servers: KeptServers) -> Program:
    """Calls `bench ARGUMENTS…` without a process of its own, which saves seconds each time; `cwd` must be named.

    Nothing that one command has read is known to the next. Its workers are those of the commands before it. Pictures
    are drawn where `plots` is true: they take longer than all else of a small sweep.
    """

    def run(*arguments: str, cwd: Path, plots: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
        models.forget()
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        streams = [io.TextIOWrapper(io.BytesIO(), encoding, newline="", write_through=True) for _ in range(2)]
        out, err = (stream.buffer for stream in streams)
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(streams[0]),
            contextlib.redirect_stderr(streams[1]),
        ):
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr("signal.signal", lambda *_: None)
            patch.setattr("bench.launch.launchers.ForkServer", servers)
            if arguments[:1] in (("sweep",), ("report",)):
                publish = importlib.import_module("bench.report.publish").publish
                patch.setattr(f"bench.commands.{arguments[0]}.publish", partial(publish, plots=plots))
            try:
                code = main(arguments)
            except SystemExit as bad_input:
                code = int(bad_input.code or 0)
        said = [stream.getvalue().decode(encoding) for stream in (out, err) if isinstance(stream, io.BytesIO)]
        return subprocess.CompletedProcess(arguments, code, *said)

    return run


@pytest.fixture
def in_process(called: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """`called` in the test's own empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(
        *arguments: str, cwd: Path = tmp_path, plots: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return called(*arguments, cwd=cwd, plots=plots, **environment)

    return run


@pytest.fixture
def gpu() -> Iterator[nvml.Gpu]:
    """The first GPU, for one test at a time; those that need one are marked `gpu` and skipped where there is none."""
    try:
        gpus = nvml.gpus()
    except nvml.NoDriver as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")
    if not gpus:
        pytest.skip("needs an NVIDIA GPU: the driver lists none")
    with FileLock(Path(tempfile.gettempdir()) / "vram-bench-gpu-tests.lock"):
        yield gpus[0]
