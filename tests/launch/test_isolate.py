"""One child process at a time, played by a few lines of Python: no torch, no engine."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import bench
from bench.core.case import Case, DeviceSpec, ModelSpec
from bench.core.messages import PhaseProgress, Report
from bench.core.outcome import Phase
from bench.launch import isolate
from bench.launch.isolate import (
    LOG_TAIL_BYTES,
    Ending,
    Interrupted,
    StartedProcess,
    case_request,
    child_environment,
    run_isolated,
)

CASE = Case(
    model=ModelSpec("tiny", {"architectures": ["LlamaForCausalLM"]}, "f1"),
    device=DeviceSpec("rtx_4090", "simulated", "NVIDIA GeForce RTX 4090", 24 << 30),
    bpw=4.0,
    head_bits=6,
    cache="Q4",
    lazy=False,
    attention="auto",
    max_seq_len=4096,
    batch_size=1,
    max_input_len=2048,
)

# `say` and `fd` are there for every script.
_PRELUDE = """\
import json, os, signal, subprocess, sys, time
fd = int(sys.argv[1])
def say(event, **data):
    os.write(fd, (json.dumps({"event": event, **data}) + "\\n").encode())
"""
_SOON_S = 5.0


@dataclass
class ScriptLauncher:
    """Starts a script as the child. Whatever descends from it holds `lifeline_fd` open for as long as it lives."""

    script: str
    lifeline_fd: int
    requests: list[str] = field(default_factory=list)

    def start(self, request: str, records_fd: int, log_fd: int) -> StartedProcess:
        self.requests.append(request)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PRELUDE + self.script, str(records_fd), str(self.lifeline_fd)],
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            pass_fds=[records_fd, self.lifeline_fd],
            start_new_session=True,
        )
        return StartedProcess(process)

    def close(self) -> None: ...


@dataclass
class Isolated:
    """`run_isolated` over a script; `all_dead` says whether it left nobody behind."""

    folder: Path
    lifeline: tuple[int, int]
    launcher: ScriptLauncher | None = None

    def __call__(
        self,
        script: str,
        timeout_s: float = 20.0,
        on_report: Callable[[Report], object] = lambda report: None,
        stop: threading.Event | None = None,
        on_progress: Callable[[PhaseProgress], object] = lambda progress: None,
    ) -> Ending:
        self.launcher = ScriptLauncher(script, self.lifeline[1])
        try:
            request = case_request(CASE, self.folder / "layouts")
            return run_isolated(self.launcher, request, self.folder / "log", timeout_s, on_report, stop, on_progress)
        finally:
            os.close(self.lifeline[1])

    def all_dead(self) -> bool:
        readable, _, _ = select.select([self.lifeline[0]], [], [], _SOON_S)
        return bool(readable) and os.read(self.lifeline[0], 1) == b""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Isolated]:
    isolated = Isolated(tmp_path, os.pipe())
    yield isolated
    os.close(isolated.lifeline[0])


def _events(ending: Ending) -> list[str]:
    return [report.event for report in ending.reports]


def test_a_child_that_ends_well_hands_over_its_records_its_exit_and_its_log(run: Isolated) -> None:
    ending = run("say('enter', phase='load')\nprint('hello')\nprint('oops', file=sys.stderr)\nsay('result', parts={})")
    assert ending.reports == [Report("enter", {"phase": "load"}), Report("result", {"parts": {}})]
    assert (ending.exit_code, ending.signal, ending.timed_out) == (0, None, False)
    assert sorted(ending.log_tail.split()) == ["hello", "oops"]
    assert 0 < ending.wall_s < _SOON_S


def test_the_child_is_asked_for_the_case_and_told_where_layouts_go(run: Isolated) -> None:
    run("")
    assert run.launcher is not None
    request = json.loads(run.launcher.requests[0])
    assert Case.from_json(request["case"]) == CASE
    assert request["layouts"] == str(run.folder / "layouts")


def test_reports_are_passed_on_while_the_child_runs(run: Isolated) -> None:
    seen = run.folder / "seen"
    script = (
        f"say('enter', phase='load')\nwhile not os.path.exists({str(seen)!r}):\n    time.sleep(0.01)\nsay('result')"
    )
    ending = run(script, on_report=lambda report: seen.touch())
    assert not ending.timed_out
    assert _events(ending) == ["enter", "result"]


_PREFILLING = "say('enter', phase='prefill')\nsay('progress', phase='prefill', done=2048, total=8188, units='tokens')\n"


def test_how_far_a_phase_is_is_passed_on_and_is_no_record(run: Isolated) -> None:
    told: list[PhaseProgress] = []
    ending = run(f"{_PREFILLING}say('phase', phase='prefill')\nsay('result')", on_progress=told.append)
    assert told == [PhaseProgress(Phase.PREFILL, 2048, 8188, "tokens")]
    assert _events(ending) == ["enter", "phase", "result"]


def test_a_child_that_is_killed_in_a_phase_keeps_its_records_and_how_far_it_was(run: Isolated) -> None:
    ending = run(f"say('phase', phase='cache')\n{_PREFILLING}time.sleep(60)", timeout_s=1)
    assert (ending.timed_out, _events(ending)) == (True, ["phase", "enter"])
    assert str(ending.progress) == "2,048 of 8,188 tokens"


def test_how_far_a_phase_was_says_nothing_of_the_next(run: Isolated) -> None:
    assert run(f"{_PREFILLING}say('enter', phase='decode')\ntime.sleep(60)", timeout_s=1).progress is None


@pytest.mark.parametrize(
    "data",
    ["phase='prefill'", "phase='lunch', done=1, total=2, units='tokens'", "phase='load', done=None, total=2, units=''"],
)
def test_progress_of_another_form_is_skipped(run: Isolated, data: str) -> None:
    told: list[PhaseProgress] = []
    ending = run(f"say('progress', {data})\nsay('result')", on_progress=told.append)
    assert (told, _events(ending), ending.exit_code) == ([], ["result"], 0)


def test_a_segfault_is_told_by_its_signal_and_keeps_what_was_reported(run: Isolated) -> None:
    ending = run("say('enter', phase='prefill')\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert (ending.exit_code, ending.signal, ending.timed_out) == (None, signal.SIGSEGV, False)
    assert ending.reports == [Report("enter", {"phase": "prefill"})]


def test_a_child_that_hangs_is_killed_at_the_limit(run: Isolated) -> None:
    ending = run("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('enter', phase='load')\ntime.sleep(60)", 1)
    assert ending.timed_out
    assert (ending.exit_code, ending.signal) == (None, signal.SIGKILL)
    assert _events(ending) == ["enter"]
    assert 1 <= ending.wall_s < 1 + _SOON_S
    assert run.all_dead()


def test_a_child_that_keeps_talking_is_killed_at_the_limit(run: Isolated) -> None:
    ending = run("while True:\n    say('enter', phase='load')\n    time.sleep(0.01)", 0.5)
    assert (ending.timed_out, ending.signal) == (True, signal.SIGKILL)


def test_a_child_that_closes_its_records_and_lives_on_is_killed(run: Isolated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "_GRACE_S", 0.3)
    ending = run("say('result')\nos.close(fd)\ntime.sleep(60)")
    assert (ending.timed_out, ending.signal) == (True, signal.SIGKILL)
    assert _events(ending) == ["result"]
    assert ending.wall_s < _SOON_S
    assert run.all_dead()


@pytest.mark.parametrize(
    "garbage",
    [
        b"not json\n",
        b"\xff\xfe\x00\n",
        b"\n\n",
        b'{"event": "resu\n',
        b'{"no_event": 1}\n',
        b"[1, 2]\n",
        b'"text"\n',
        b"42\n",
        b"null\n",
    ],
)
def test_garbage_among_the_records_is_skipped(run: Isolated, garbage: bytes) -> None:
    ending = run(f"say('enter', phase='load')\nos.write(fd, {garbage!r})\nsay('result')")
    assert _events(ending) == ["enter", "result"]
    assert ending.exit_code == 0


def test_a_record_that_the_child_died_in_is_no_record(run: Isolated) -> None:
    ending = run("say('enter', phase='load')\nos.write(fd, b'{\"event\": \"resu')\nos._exit(7)")
    assert _events(ending) == ["enter"]
    assert ending.exit_code == 7


def test_a_record_that_comes_in_pieces_is_put_together(run: Isolated) -> None:
    ending = run('os.write(fd, b\'{"event": "re\')\ntime.sleep(0.1)\nos.write(fd, b\'sult", "n": 1}\\n\')')
    assert ending.reports == [Report("result", {"n": 1})]


def test_a_record_larger_than_a_pipe_arrives_whole(run: Isolated) -> None:
    ending = run("say('result', notes='x' * 300_000)")
    assert ending.reports == [Report("result", {"notes": "x" * 300_000})]


def test_megabytes_on_stdout_do_not_block_and_only_the_end_is_kept(run: Isolated) -> None:
    ending = run("print('x' * 5_000_000)\nprint('last words', flush=True)\nsay('result')")
    assert ending.exit_code == 0
    assert _events(ending) == ["result"]
    assert len(ending.log_tail) == LOG_TAIL_BYTES
    assert ending.log_tail.endswith("\nlast words\n")
    assert (run.folder / "log").stat().st_size > 5_000_000


def test_a_log_that_is_no_text_does_no_harm(run: Isolated) -> None:
    ending = run(r"os.write(1, b'\xff\xfe broken')")
    assert ending.log_tail.endswith(" broken")


def test_a_grandchild_left_behind_is_killed(run: Isolated) -> None:
    ending = run(
        "subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)'],"
        " pass_fds=[int(sys.argv[2])])\nsay('result')"
    )
    assert (ending.exit_code, ending.timed_out) == (0, False)
    assert run.all_dead()


def test_a_grandchild_that_holds_the_records_open_does_not_turn_a_result_into_a_timeout(run: Isolated) -> None:
    ending = run("say('result')\nif os.fork() == 0:\n    time.sleep(60)", timeout_s=1.5)
    assert (ending.exit_code, ending.timed_out) == (0, False)
    assert run.all_dead()


def test_an_exit_code_after_the_result_is_kept(run: Isolated) -> None:
    ending = run("say('result')\nos._exit(3)")
    assert (ending.exit_code, ending.signal) == (3, None)
    assert _events(ending) == ["result"]


def test_a_stop_kills_the_child_and_all_that_it_started(run: Isolated) -> None:
    stop = threading.Event()
    script = (
        "subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)'],"
        " pass_fds=[int(sys.argv[2])])\nsay('enter', phase='load')\ntime.sleep(60)"
    )
    started_at = time.monotonic()
    with pytest.raises(Interrupted):
        run(script, on_report=lambda report: stop.set(), stop=stop)
    assert time.monotonic() - started_at < _SOON_S
    assert run.all_dead()


def test_a_stop_is_seen_while_the_child_is_silent(run: Isolated) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    started_at = time.monotonic()
    with pytest.raises(Interrupted):
        run("time.sleep(60)", stop=stop)
    assert time.monotonic() - started_at < _SOON_S
    assert run.all_dead()


def test_a_callback_that_fails_leaves_no_child_behind(run: Isolated) -> None:
    def on_report(report: Report) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run("say('enter', phase='load')\ntime.sleep(10)", on_report=on_report)
    assert run.all_dead()


def test_no_descriptors_are_leaked(run: Isolated) -> None:
    before = len(os.listdir("/dev/fd"))
    run("say('result')")
    assert len(os.listdir("/dev/fd")) == before - 1  # the lifeline's end, which the test itself closes


@pytest.mark.parametrize(
    "name",
    [
        "EXLLAMA_NO_SDPA",
        "EXLLAMA_NO_FLASH_ATTN",
        "EXLLAMA_NO_XFORMERS",
        "EXLLAMA_NO_GRAPHS",
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_HIP_ALLOC_CONF",
        "PYTORCH_NO_CUDA_MEMORY_CACHING",
        "HF_TOKEN",
        "CUDA_LAUNCH_BLOCKING",
        "CUBLAS_WORKSPACE_CONFIG",
        "LD_PRELOAD",
    ],
)
@pytest.mark.parametrize("kind", ["simulated", "cuda"])
def test_the_users_switches_never_reach_the_child(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert name not in child_environment(kind, "GPU-1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:False"),
        ("CUDA_MODULE_LOADING", "LAZY"),
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
    ],
)
def test_what_memory_depends_on_is_pinned_whatever_the_user_set(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:64")
    assert child_environment("cuda", "GPU-1")[name] == value


def test_what_the_child_needs_to_run_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/models")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    environment = child_environment("cuda", "GPU-1")
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["TORCH_EXTENSIONS_DIR"] == "/models"
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(Path(bench.__file__).parent.parent), "/mine"]


@pytest.mark.parametrize(
    ("kind", "uuid", "visible"), [("simulated", None, ""), ("cuda", "GPU-1", "GPU-1"), ("cuda", None, "0")]
)
def test_the_child_sees_its_own_gpu_and_no_other(
    kind: str, uuid: str | None, visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert child_environment(kind, uuid)["CUDA_VISIBLE_DEVICES"] == visible


def test_a_simulated_case_takes_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert child_environment("simulated", None)["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in child_environment("cuda", "GPU-1")
