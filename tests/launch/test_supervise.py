"""One child process at a time, played by a few lines of Python: no torch, no engine."""

from __future__ import annotations

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

from bench.core import wire
from bench.core.case import Case, ModelSpec
from bench.core.device import DeviceSpec
from bench.core.messages import CardFacts, Entered, Message, PhaseProgress, Result
from bench.core.outcome import Phase
from bench.core.requests import RunCase, read_request
from bench.launch import supervise
from bench.launch.fresh_interpreter import StartedProcess
from bench.launch.supervise import LOG_TAIL_BYTES, Ending, Interrupted, run_isolated

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

# These are there for every script.
_PRELUDE = """\
import json, os, signal, subprocess, sys, time
fd = int(sys.argv[1])
def say(kind, **data):
    os.write(fd, (json.dumps({"kind": kind, **data}) + "\\n").encode())
def enter(phase):
    say("Entered", phase=phase)
def leave(phase):
    names = ["allocated", "reserved", "device", "peak_allocated", "peak_requested", "peak_reserved", "peak_device"]
    say("PhaseDone", phase=phase, seconds=1.0, memory={f"{name}_bytes": 0 for name in names})
def succeed(notes=[]):
    say("Result", parts={}, notes=notes, facts={})
"""
RESULT = Result({}, [], CardFacts())
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

    def kill(self) -> None: ...


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
        on_message: Callable[[Message], object] = lambda message: None,
        stop: threading.Event | None = None,
    ) -> Ending:
        self.launcher = ScriptLauncher(script, self.lifeline[1])
        try:
            request = RunCase(CASE, self.folder / "layouts")
            return run_isolated(self.launcher, request, self.folder / "log", timeout_s, on_message, stop)
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


def _kinds(ending: Ending) -> list[str]:
    return [type(message).__name__ for message in ending.messages]


def test_a_child_that_ends_well_hands_over_its_records_its_exit_and_its_log(run: Isolated) -> None:
    ending = run("enter('load')\nprint('hello')\nprint('oops', file=sys.stderr)\nsucceed()")
    assert ending.messages == [Entered(Phase.LOAD), RESULT]
    assert (ending.exit_code, ending.signal, ending.timed_out) == (0, None, False)
    assert sorted(ending.log_tail.split()) == ["hello", "oops"]
    assert 0 < ending.wall_s < _SOON_S


def test_the_child_is_asked_for_the_case_and_told_where_layouts_go(run: Isolated) -> None:
    run("")
    assert run.launcher is not None
    (request,) = run.launcher.requests
    assert read_request(request) == RunCase(CASE, run.folder / "layouts")


def test_messages_are_passed_on_while_the_child_runs(run: Isolated) -> None:
    seen = run.folder / "seen"
    script = f"enter('load')\nwhile not os.path.exists({str(seen)!r}):\n    time.sleep(0.01)\nsucceed()"
    ending = run(script, on_message=lambda message: seen.touch())
    assert not ending.timed_out
    assert _kinds(ending) == ["Entered", "Result"]


_PREFILLING = "enter('prefill')\nsay('PhaseProgress', phase='prefill', done=2048, total=8188, units='tokens')\n"


def test_how_far_a_phase_is_is_passed_on_and_is_no_record(run: Isolated) -> None:
    told: list[Message] = []
    ending = run(f"{_PREFILLING}leave('prefill')\nsucceed()", on_message=told.append)
    assert told[1] == PhaseProgress(Phase.PREFILL, 2048, 8188, "tokens")
    assert _kinds(ending) == ["Entered", "PhaseDone", "Result"]


def test_a_child_that_is_killed_in_a_phase_keeps_its_records_and_how_far_it_was(run: Isolated) -> None:
    ending = run(f"leave('cache')\n{_PREFILLING}time.sleep(60)", timeout_s=1)
    assert (ending.timed_out, _kinds(ending)) == (True, ["PhaseDone", "Entered"])
    assert str(ending.progress) == "2,048 of 8,188 tokens"


def test_how_far_a_phase_was_says_nothing_of_the_next(run: Isolated) -> None:
    assert run(f"{_PREFILLING}enter('decode')\ntime.sleep(60)", timeout_s=1).progress is None


@pytest.mark.parametrize(
    "data",
    ["phase='prefill'", "phase='lunch', done=1, total=2, units='tokens'", "phase='load', done=None, total=2, units=''"],
)
def test_progress_of_another_form_is_skipped(run: Isolated, data: str) -> None:
    told: list[Message] = []
    ending = run(f"say('PhaseProgress', {data})\nsucceed()", on_message=told.append)
    assert (told, _kinds(ending), ending.exit_code) == ([RESULT], ["Result"], 0)


def test_a_segfault_is_told_by_its_signal_and_keeps_what_was_reported(run: Isolated) -> None:
    ending = run("enter('prefill')\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert (ending.exit_code, ending.signal, ending.timed_out) == (None, signal.SIGSEGV, False)
    assert ending.messages == [Entered(Phase.PREFILL)]


def test_a_child_that_hangs_is_killed_at_the_limit(run: Isolated) -> None:
    ending = run("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nenter('load')\ntime.sleep(60)", 1)
    assert ending.timed_out
    assert (ending.exit_code, ending.signal) == (None, signal.SIGKILL)
    assert _kinds(ending) == ["Entered"]
    assert 1 <= ending.wall_s < 1 + _SOON_S
    assert run.all_dead()


def test_a_child_that_keeps_talking_is_killed_at_the_limit(run: Isolated) -> None:
    ending = run("while True:\n    enter('load')\n    time.sleep(0.01)", 0.5)
    assert (ending.timed_out, ending.signal) == (True, signal.SIGKILL)


def test_a_child_that_closes_its_records_and_lives_on_is_killed(run: Isolated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "_GRACE_S", 0.3)
    ending = run("succeed()\nos.close(fd)\ntime.sleep(60)")
    assert (ending.timed_out, ending.signal) == (True, signal.SIGKILL)
    assert _kinds(ending) == ["Result"]
    assert ending.wall_s < _SOON_S
    assert run.all_dead()


@pytest.mark.parametrize(
    "garbage",
    [
        b"not json\n",
        b"\xff\xfe\x00\n",
        b"\n\n",
        b'{"kind": "Resu\n',
        b'{"no_kind": 1}\n',
        b'{"kind": ["Result"]}\n',
        b'{"kind": "OfANewerWorker"}\n',
        b'{"kind": "Entered", "PhaseDone": "of a newer worker"}\n',
        b'{"kind": "Entered", "PhaseDone": null}\n',
        b"[1, 2]\n",
        b'"text"\n',
        b"42\n",
        b"null\n",
    ],
)
def test_garbage_among_the_records_is_skipped(run: Isolated, garbage: bytes) -> None:
    ending = run(f"enter('load')\nos.write(fd, {garbage!r})\nsucceed()")
    assert _kinds(ending) == ["Entered", "Result"]
    assert ending.exit_code == 0


def test_a_record_that_the_child_died_in_is_no_record(run: Isolated) -> None:
    ending = run("enter('load')\nos.write(fd, b'{\"kind\": \"Resu')\nos._exit(7)")
    assert _kinds(ending) == ["Entered"]
    assert ending.exit_code == 7


def test_a_record_that_comes_in_pieces_is_put_together(run: Isolated) -> None:
    ending = run('os.write(fd, b\'{"kind": "Ent\')\ntime.sleep(0.1)\nos.write(fd, b\'ered", "phase": "load"}\\n\')')
    assert ending.messages == [Entered(Phase.LOAD)]


def test_a_record_larger_than_a_pipe_arrives_whole(run: Isolated) -> None:
    ending = run("succeed(['x' * 300_000])")
    assert ending.messages == [Result({}, ["x" * 300_000], CardFacts())]


def test_megabytes_on_stdout_do_not_block_and_only_the_end_is_kept(run: Isolated) -> None:
    ending = run("print('x' * 5_000_000)\nprint('last words', flush=True)\nsucceed()")
    assert ending.exit_code == 0
    assert _kinds(ending) == ["Result"]
    assert len(ending.log_tail) == LOG_TAIL_BYTES
    assert ending.log_tail.endswith("\nlast words\n")
    assert (run.folder / "log").stat().st_size > 5_000_000


def test_a_log_that_is_no_text_does_no_harm(run: Isolated) -> None:
    ending = run(r"os.write(1, b'\xff\xfe broken')")
    assert ending.log_tail.endswith(" broken")


def test_a_grandchild_left_behind_is_killed(run: Isolated) -> None:
    ending = run(
        "subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)'],"
        " pass_fds=[int(sys.argv[2])])\nsucceed()"
    )
    assert (ending.exit_code, ending.timed_out) == (0, False)
    assert run.all_dead()


def test_a_grandchild_that_holds_the_records_open_does_not_turn_a_result_into_a_timeout(run: Isolated) -> None:
    ending = run("succeed()\nif os.fork() == 0:\n    time.sleep(60)", timeout_s=1.5)
    assert (ending.exit_code, ending.timed_out) == (0, False)
    assert run.all_dead()


def test_an_exit_code_after_the_result_is_kept(run: Isolated) -> None:
    ending = run("succeed()\nos._exit(3)")
    assert (ending.exit_code, ending.signal) == (3, None)
    assert _kinds(ending) == ["Result"]


def test_a_stop_kills_the_child_and_all_that_it_started(run: Isolated) -> None:
    stop = threading.Event()
    script = (
        "subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)'],"
        " pass_fds=[int(sys.argv[2])])\nenter('load')\ntime.sleep(60)"
    )
    started_at = time.monotonic()
    with pytest.raises(Interrupted):
        run(script, on_message=lambda message: stop.set(), stop=stop)
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
    def on_message(message: Message) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run("enter('load')\ntime.sleep(10)", on_message=on_message)
    assert run.all_dead()


def test_no_descriptors_are_leaked(run: Isolated) -> None:
    before = len(os.listdir("/dev/fd"))
    run("succeed()")
    assert len(os.listdir("/dev/fd")) == before - 1  # the lifeline's end, which the test itself closes


class _Hurried:
    """A child that is silent until it is asked whether it has ended, and by then has told all and ended."""

    pid = 1 << 30  # of no process

    def __init__(self, records_fd: int) -> None:
        self._records_fd = os.dup(records_fd)

    def wait(self, timeout_s: float | None = None) -> int:
        if self._records_fd >= 0:
            os.write(self._records_fd, (wire.encode(RESULT) + "\n").encode())
            self._records_fd = -1  # a child of its own keeps the pipe open
        return 0


class _HurriedLauncher:
    def start(self, request: str, records_fd: int, log_fd: int) -> _Hurried:
        return _Hurried(records_fd)

    def close(self) -> None:
        pass


def test_what_a_child_tells_just_before_it_ends_is_read(tmp_path: Path) -> None:
    ending = run_isolated(_HurriedLauncher(), RunCase(CASE, tmp_path), tmp_path / "log", 60)
    assert (ending.messages, ending.exit_code) == ([RESULT], 0)
