"""Several sweeps into one folder, those that were killed, and those that are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.config.cases import plan_sweep
from bench.core.case import Case
from bench.core.errors import BadInput
from bench.core.outcome import Phase
from bench.launch import launchers
from bench.run import measure
from bench.run.claims import Claims
from bench.run.leftovers import clean_up
from bench.run.locks import claimed
from bench.run.progress import Progress
from bench.run.sweep import Finished, SweepOptions, run_sweep
from bench.store.journal import Journal
from bench.store.schema import Kind
from bench.store.store import read_boundaries, read_cases
from tests.run.fake_card import FakeCard
from tests.store.test_kinds import _row as row_of

ROOT = Path(__file__).parent.parent.parent
TINY = ("model=tinyllama_1_1b", "device=t4")  # goes up to 2,048 tokens: eight lengths
LENGTHS = [*range(256, 2049, 256)]
ALL = f"max_seq_len={','.join(map(str, LENGTHS))}"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go; and nothing is predicted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scratch = tmp_path.parent / f"{tmp_path.name}-tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    return scratch


def sweep(
    results: Path, run_id: str, card: FakeCard, *overrides: str, progress: Progress | None = None, **how: object
) -> Finished:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launchers, "make_launcher", lambda *of: card)
        planned = plan_sweep([*TINY, *overrides])
        options = SweepOptions(results, run_id, timeout_s=20, jobs=1, **how)  # type: ignore[arg-type]
        return run_sweep(planned.cases, planned.searches, options, progress)


def cases(results: Path) -> list[str]:
    return [str(name) for name in read_cases(results)[0].column("case_id").to_pylist()]


# Two at once

_ONE_OF_TWO = """\
import sys, time
from pathlib import Path
from tests.run.fake_card import FakeCard
from tests.run.test_two_sweeps import ALL, sweep
results, run_id = Path(sys.argv[1]), sys.argv[2]
card = FakeCard(1000, takes_s=0.1)
(results / run_id).mkdir(parents=True)
while len([*results.iterdir()]) < 2:
    time.sleep(0.01)
sweep(results, run_id, card, ALL, "max_seq_len=auto", "cache=FP16,Q4")
print(len(card.lengths))
"""


def test_two_sweeps_at_once_measure_each_case_and_find_each_boundary_once(tmp_path: Path, scratch: Path) -> None:
    script = _ONE_OF_TWO.replace('ALL, "max_seq_len=auto"', 'ALL + ",auto"')
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "results"), name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    measured = [int(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert min(measured) > 2  # they shared the work
    assert (sum(measured), len(set(cases(tmp_path / "results")))) == (16, 16)
    found = read_boundaries(tmp_path / "results")[0].to_pylist()
    assert [(row["cache"], row["fits_at"]) for row in sorted(found, key=lambda row: row["cache"])] == [
        ("FP16", 768),
        ("Q4", 768),
    ]
    assert sorted(os.listdir(tmp_path / "results")) == ["a", "b"]
    assert os.listdir(scratch) == []


_HOLDER = """\
import sys, time
from pathlib import Path
from bench.run.claims import Claims
claims = Claims(Path(sys.argv[1]))
print(claims.take("a"), flush=True)
time.sleep(60)
"""


def test_a_claim_ends_with_its_process_and_the_last_one_deletes_the_file(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    first, mine = Claims(tmp_path), Claims(tmp_path)
    assert (mine.take("a"), mine.take("b")) == (False, True)
    threading.Timer(0.3, holder.kill).start()
    with mine.held("a", threading.Event()) as is_held:
        assert is_held
    holder.wait()
    first.close()
    mine.close()
    assert os.listdir(tmp_path) == []


def test_a_file_of_claims_goes_with_the_next_start_but_not_while_a_sweep_lives(tmp_path: Path) -> None:
    """Also where that next one has nothing left to measure."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    clean_up(tmp_path)
    assert os.listdir(tmp_path) == [".claims"]
    holder.kill()
    holder.wait()
    clean_up(tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_one_thread_gives_back_another_still_has(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    assert (claims.take("a"), claims.take("a")) == (True, True)
    claims.release("a")
    asked = [sys.executable, "-c", _HOLDER.replace("60", "0"), str(tmp_path)]
    assert subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"
    claims.release("a")
    assert subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "True\n"
    claims.close()


def test_whoever_waits_for_a_claim_can_be_stopped(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    claims = Claims(tmp_path)
    with claims.held("a", stop) as is_held:
        assert not is_held
    claims.close()


def test_a_clock_that_jumps_back_costs_no_row_and_measures_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, card = tmp_path / "results", FakeCard()
    sweep(results, "before", card, "max_seq_len=256,512")
    monkeypatch.setattr(measure, "now", lambda: datetime(2001, 1, 1, tzinfo=UTC))  # and stands still
    sweep(results, "after", card, "max_seq_len=256,512,768,1024")
    assert sorted(card.lengths) == [256, 512, 768, 1024]
    assert len(cases(results)) == len(set(cases(results))) == 4
    sweep(results, "again", card, "max_seq_len=256,768", rerun=True)
    assert (len(cases(results)), len(set(cases(results)))) == (6, 4)


# Those that were killed


def test_the_next_sweep_cleans_up_what_a_killed_one_left(tmp_path: Path, scratch: Path) -> None:
    results = tmp_path / "results"
    sweep(results, "before", FakeCard(), "max_seq_len=256")
    dead, empty, living = results / "dead", results / "empty", results / "living"
    for run_dir in (dead, empty, living):
        (run_dir / "logs").mkdir(parents=True)
        (run_dir / "logs" / "x.log").touch()
        (run_dir / ".lock").touch()
    journal = Journal(dead)
    journal.append(row_of(Kind.CASES, "kept"))
    journal.close()
    (dead / "cases.parquet.4194999.partial").touch()
    Journal(empty).close()
    of_the_dead = scratch / "vram-bench-run-dead"
    of_the_dead.mkdir()
    os.utime(of_the_dead, (0, 0))
    with claimed(living):
        writing = Journal(living)
        writing.append(row_of(Kind.CASES, "living"))
        sweep(results, "next", FakeCard(), "max_seq_len=512")
        writing.close()
        assert sorted(os.listdir(living)) == [".lock", writing.path.name, "logs"]
    assert sorted(os.listdir(dead)) == ["cases.parquet", "logs"]
    assert sorted(os.listdir(results)) == ["before", "dead", "living", "next"]
    assert os.listdir(scratch) == []
    assert {"kept", "living"} < set(cases(results))


def test_what_is_in_use_or_cannot_be_deleted_is_left(tmp_path: Path) -> None:
    run_dir = tmp_path / "results" / "run"
    living = Journal(run_dir)
    living.append(row_of(Kind.CASES, "a"))
    (tmp_path / "results" / "file").touch()
    (tmp_path / "results" / "notes").mkdir()
    (tmp_path / "results" / "notes" / "mine.txt").touch()
    clean_up(tmp_path / "results")
    clean_up(tmp_path / "none")
    assert sorted(os.listdir(run_dir)) == [living.path.name]
    assert sorted(os.listdir(tmp_path / "results")) == ["file", "notes", "run"]
    living.close()


def test_a_run_has_one_writer(tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(BadInput, match="another sweep is writing"), claimed(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


# Those that are interrupted


class Interrupting(Progress):
    """Interrupts the sweep as Ctrl-C does, so many times, when the first case has come to its first phase."""

    def __init__(self, times: int, number: int = signal.SIGINT) -> None:
        self._times, self._number = times, number
        self.told: list[str] = []

    def enter(self, case: Case, phase: Phase) -> None:
        if self._times and not self.told:
            self._interrupt()

    def end(self) -> None:
        self.told.append("end")
        if self._times:
            threading.Timer(0.2, self._interrupt).start()

    def _interrupt(self) -> None:
        self._times -= 1
        os.kill(os.getpid(), self._number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_interrupt_lets_the_case_that_runs_come_to_its_end(tmp_path: Path, number: int) -> None:
    before = signal.signal(number, signal.default_int_handler)
    try:
        card, progress = FakeCard(takes_s=1.0), Interrupting(1, number)
        finished = sweep(tmp_path, "run", card, ALL, progress=progress)
    finally:
        signal.signal(number, before)
    assert (finished.interrupted, finished.at_once, progress.told) == (True, False, ["end"])
    assert (len(card.lengths), len(cases(tmp_path))) == (1, 1)
    assert sorted(os.listdir(tmp_path / "run")) == ["cases.parquet", "logs"]


def test_two_interrupts_end_it_at_once(tmp_path: Path, scratch: Path) -> None:
    started_at = time.monotonic()
    finished = sweep(tmp_path / "results", "run", FakeCard(takes_s=30.0), ALL, progress=Interrupting(2))
    assert time.monotonic() - started_at < 20
    assert (finished.interrupted, finished.at_once, finished.run_dir) == (True, True, None)
    assert os.listdir(tmp_path / "results") == []
    assert os.listdir(scratch) == []


# What runs again


@pytest.mark.parametrize(
    ("retry", "again"),
    [(None, ["crash"]), ("crash", ["crash"]), ("oom", ["oom"]), ("oom,crash", ["crash", "oom"]), ("none", [])],
)
def test_the_verdicts_that_run_again_can_be_chosen(tmp_path: Path, retry: str | None, again: list[str]) -> None:
    ends = {256: "fits", 512: "crash", 768: "oom"}
    lengths = "max_seq_len=256,512,768"
    sweep(tmp_path, "first", FakeCard(ends=ends), lengths)
    card = FakeCard(ends=ends)
    settings = plan_sweep([*TINY, lengths, *([] if retry is None else [f"retry={retry}"])]).settings
    sweep(tmp_path, "second", card, lengths, retry=settings.retry)
    assert sorted(ends[length] for length in card.lengths) == again


def test_a_boundary_that_ended_in_what_is_not_to_run_again_is_known(tmp_path: Path) -> None:
    for run_id, retry, runs in (("first", ("crash",), True), ("second", (), False), ("third", ("crash",), True)):
        card = FakeCard(1500, ends={1536: "crash"})
        sweep(tmp_path, run_id, card, retry=retry)
        assert bool(card.lengths) is runs


@pytest.mark.parametrize("retry", ["fits", "oom,late", "true", "7"])
def test_a_verdict_that_is_none_is_refused(retry: str) -> None:
    with pytest.raises(BadInput, match="oom, timeout, crash"):
        plan_sweep([*TINY, f"retry={retry}"])
