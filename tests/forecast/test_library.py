"""TraceLibrary made by real workers, kept in a cache on disk, and made again where that was damaged."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bench.allocator.limits import limits_of
from bench.core.case import Case, ModelSpec
from bench.core.device import DeviceSpec
from bench.core.messages import PhaseDone, last
from bench.core.requests import RunCase
from bench.forecast import library as traces
from bench.forecast.library import TraceLibrary
from bench.launch import versions
from bench.launch.fresh_interpreter import StartedProcess
from bench.launch.launcher import Launcher, LauncherFailed, Started
from bench.launch.launchers import make_launcher
from bench.launch.supervise import run_isolated
from bench.trace.passes import NoPrediction

TINY = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}
CASE = Case(
    model=ModelSpec("tiny", TINY, "tiny"),
    device=DeviceSpec("made_up", "simulated", "Made up", 8 << 30, "8.9", 128, 1e12, 300 << 20, "assumed"),
    bpw=4.0,
    head_bits=6,
    cache="Q4",
    lazy=False,
    attention="auto",
    max_seq_len=777,
    batch_size=1,
    max_input_len=256,
)
UNKNOWN = replace(CASE, model=ModelSpec("odd", {**TINY, "architectures": ["NoSuchForCausalLM"]}, "odd"))


@pytest.fixture(scope="module")
def workers() -> Iterator[Launcher]:
    launcher = make_launcher("simulated", CASE.engine)
    yield launcher
    launcher.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made_by(tmp_path: Path) -> Callable[[Launcher], TraceLibrary]:
    def make(launcher: Launcher) -> TraceLibrary:
        return TraceLibrary(lambda engine: launcher, tmp_path, jobs=2)

    return make


@pytest.fixture
def of_cache(tmp_path: Path) -> TraceLibrary:
    """TraceLibrary that may start nothing."""

    def refuse(engine: str) -> Launcher:
        raise AssertionError("a worker was started")

    return TraceLibrary(refuse, tmp_path)


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.suffix in (".npz", ".json"))


def simulated(launcher: Launcher, case: Case, folder: Path) -> tuple[int, int, int]:
    """The peaks of the case itself, run by a worker."""
    ending = run_isolated(launcher, RunCase(case, folder), folder / "log", 60.0)
    assert ending.exit_code == 0, ending.log_tail
    done = last(ending.messages, PhaseDone)
    assert done is not None
    return done.memory.peak_allocated_bytes, done.memory.peak_requested_bytes, done.memory.peak_reserved_bytes


def predicted(made: TraceLibrary, case: Case) -> tuple[int, int, int]:
    replay = made.replayer(case).replay(case.max_seq_len, limits_of(case.device, None))
    assert replay.fits
    return replay.peak_allocated_bytes, replay.peak_requested_bytes, replay.peak_reserved_bytes


def test_what_workers_record_is_what_workers_measure(
    workers: Launcher, made_by: Callable[[Launcher], TraceLibrary], tmp_path: Path
) -> None:
    made = made_by(workers)
    cases = [
        replace(CASE, cache=cache, lazy=lazy, bpw=bpw)
        for cache, lazy, bpw in (("Q4", False, 4.0), ("Q8", True, 3.0), ("FP16", False, 16.0))
    ]
    made.prepare(cases)
    for case in cases:
        assert predicted(made, case) == simulated(workers, case, tmp_path)


def test_the_second_time_nothing_is_started(
    workers: Launcher, made_by: Callable[[Launcher], TraceLibrary], of_cache: TraceLibrary
) -> None:
    made = made_by(workers)
    made.prepare([CASE])
    of_cache.prepare([CASE, replace(CASE, max_seq_len=4096), replace(CASE, cache="Q8")])
    assert predicted(of_cache, CASE) == predicted(made, CASE)


def test_what_cells_share_is_made_once(
    workers: Launcher, made_by: Callable[[Launcher], TraceLibrary], cache: Path
) -> None:
    """A program for all widths and quantised caches, tensors for all that load the same weights."""
    heard: list[tuple[int, int]] = []
    made = made_by(workers)
    made.prepare([CASE, replace(CASE, cache="Q6"), replace(CASE, max_seq_len=64)], lambda *so_far: heard.append(so_far))
    assert heard == [(0, 2), (1, 2), (2, 2)]
    assert sorted(path.suffix for path in files(cache)) == [".json", ".npz"]
    made.prepare([replace(CASE, bpw=3.0)])
    assert sorted(path.suffix for path in files(cache)) == [".json", ".json", ".npz"]


def test_cells_that_share_a_replayer_have_one_key(of_cache: TraceLibrary) -> None:
    key = of_cache.search_key(CASE)
    same = [
        replace(CASE, max_seq_len=64),
        replace(CASE, vram_limit_bytes=1 << 30),
        replace(CASE, device=replace(CASE.device, name="other", multi_processor_count=20, compute_capability="9.0")),
    ]
    others = [
        replace(CASE, bpw=3.0),
        replace(CASE, head_bits=8),
        replace(CASE, cache="Q8"),
        replace(CASE, lazy=True),
        replace(CASE, attention="matmul"),
        replace(CASE, batch_size=2),
        replace(CASE, max_input_len=512),
        replace(CASE, model=replace(CASE.model, fingerprint="other")),
        replace(CASE, device=replace(CASE.device, compute_capability="7.5")),
    ]
    assert {of_cache.search_key(case) for case in same} == {key}
    assert len({key, *(of_cache.search_key(case) for case in others)}) == 1 + len(others)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "cut", "changed"])
def test_a_damaged_cache_is_made_again(
    workers: Launcher, made_by: Callable[[Launcher], TraceLibrary], cache: Path, suffix: str, damage: str
) -> None:
    made = made_by(workers)
    made.prepare([CASE])
    expected = predicted(made, CASE)
    (path,) = (path for path in files(cache) if path.suffix == suffix)
    data = bytearray(path.read_bytes())
    if damage == "changed":
        position = len(data) // 2
        data[position : position + 40] = random.Random(0).randbytes(40)
    path.write_bytes({"empty": b"", "garbage": b"\x00garbage", "cut": data[: len(data) // 2]}.get(damage, data))
    assert predicted(made_by(workers), CASE) == expected
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(NoPrediction, match=r"its recording is damaged .*; it will be made again"):
        made_by(NoWorkers()).replayer(CASE)
    assert not path.exists()


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_cache_that_cannot_be_written_to_is_read_and_made_up_for(
    workers: Launcher,
    made_by: Callable[[Launcher], TraceLibrary],
    of_cache: TraceLibrary,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_damaged: bool,
) -> None:
    made = made_by(workers)
    made.prepare([CASE])
    expected = predicted(made, CASE)
    kept = {path: path.read_bytes() for path in files(cache)}
    if is_damaged:
        kept = dict.fromkeys(kept, b"garbage")
        for path in kept:
            path.write_bytes(b"garbage")

    def refuse(*_: object, **__: object) -> None:  # root may write anywhere
        raise PermissionError

    monkeypatch.setattr("bench.forecast.library.os.access", lambda *_: False)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    if not is_damaged:
        assert predicted(of_cache, CASE) == expected
    other = replace(CASE, lazy=True)
    again = made_by(workers)
    again.prepare([CASE, other])
    assert predicted(again, CASE) == expected
    assert predicted(again, other)
    assert {path: path.read_bytes() for path in files(cache)} == kept


def test_bytes_that_change_never_go_unseen_or_unhandled(
    workers: Launcher, made_by: Callable[[Launcher], TraceLibrary], cache: Path
) -> None:
    """A bit here and there: the same figures as before, or none."""
    made = made_by(workers)
    made.prepare([CASE])
    expected = predicted(made, CASE)
    kept = {path: path.read_bytes() for path in files(cache)}
    chance = random.Random(1)
    seen = 0
    for _ in range(200):
        path, data = chance.choice([*kept.items()])
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            assert predicted(made_by(NoWorkers()), CASE) == expected
        except NoPrediction:
            seen += 1
        for each, content in kept.items():
            each.write_bytes(content)
    assert seen > 150


def test_what_cannot_be_recorded_is_kept_with_its_reason(
    workers: Launcher, made_by: Callable[[Launcher], TraceLibrary], of_cache: TraceLibrary
) -> None:
    made = made_by(workers)
    made.prepare([UNKNOWN, CASE])
    of_cache.prepare([UNKNOWN])
    for each in (made, of_cache):
        with pytest.raises(NoPrediction, match=r"Unsupported: .* does not know the architecture NoSuchForCausalLM"):
            each.replayer(UNKNOWN)
        assert predicted(each, CASE)


def test_before_anything_was_made_there_is_a_reason(of_cache: TraceLibrary) -> None:
    with pytest.raises(NoPrediction, match="its recording came to no end"):
        of_cache.replayer(CASE)


@dataclass
class Dying:
    """Starts children that begin to write a program, and are killed over it."""

    environments: list[str] = field(default_factory=list)

    def start(self, request: str, records_fd: int, log_fd: int) -> Started:
        script = (
            "import json, os, signal, sys\n"
            "path = json.loads(sys.argv[1])['wanted'][0]['path']\n"
            "open(f'{path}.{os.getpid()}.partial', 'wb').write(b'half')\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", script, request],
            stdout=log_fd,
            stderr=log_fd,
            pass_fds=[records_fd],
            start_new_session=True,
        )
        return StartedProcess(process)

    def close(self) -> None: ...

    def kill(self) -> None: ...


def test_a_child_that_dies_leaves_no_half_written_file(
    workers: Launcher, made_by: Callable[[Launcher], TraceLibrary], cache: Path
) -> None:
    dying = made_by(Dying())
    heard: list[tuple[int, int]] = []
    dying.prepare([CASE], lambda *so_far: heard.append(so_far))
    assert heard[-1] == (2, 2)
    assert files(cache) == []
    with pytest.raises(NoPrediction, match="its recording came to no end"):
        dying.replayer(CASE)
    made = made_by(workers)
    made.prepare([CASE])
    assert predicted(made, CASE)


def test_a_child_that_takes_too_long_is_killed_and_its_program_made_another_time(
    workers: Launcher, made_by: Callable[[Launcher], TraceLibrary], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "_TIMEOUT_S", 0.05)
    made = made_by(workers)
    made.prepare([CASE])
    assert not [path for path in files(cache) if path.suffix == ".npz"]
    monkeypatch.undo()


class NoWorkers:
    def start(self, request: str, records_fd: int, log_fd: int) -> Started:
        raise LauncherFailed("the worker could not start")

    def close(self) -> None: ...

    def kill(self) -> None: ...


def test_without_workers_there_are_no_programs_and_no_crash(made_by: Callable[[Launcher], TraceLibrary]) -> None:
    made = made_by(NoWorkers())
    made.prepare([CASE])
    with pytest.raises(NoPrediction, match="its recording came to no end"):
        made.replayer(CASE)


def test_no_thread_outlives_what_ended_early(of_cache: TraceLibrary) -> None:
    before = set(threading.enumerate())
    with pytest.raises(AssertionError, match="a worker was started"):
        of_cache.prepare([CASE])
    assert set(threading.enumerate()) <= before


def test_other_rules_are_another_cache(of_cache: TraceLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The versions of PyTorch and ExLlamaV2, and the source of what decides: nothing old is ever looked at."""
    monkeypatch.setattr(versions, "installed_versions", lambda: {"torch": "0.0"})
    other = TraceLibrary(lambda engine: make_launcher("simulated", CASE.engine), tmp_path)
    assert other._dir != of_cache._dir
    assert os.path.commonpath([other._dir, of_cache._dir]) == str(of_cache._dir.parent)
