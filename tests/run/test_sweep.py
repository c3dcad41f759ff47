"""The sweep around the cases, with launchers that are made up."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bench.errors import BadInput
from bench.plan.cases import plan_sweep
from bench.results.store import read_cases
from bench.run import sweep
from bench.run.isolate import LauncherFailed, Started


class Broken:
    """A launcher that can start nothing."""

    def __init__(self) -> None:
        self.asked = 0

    def start(self, request: str, records_fd: int, log_fd: int) -> Started:
        self.asked += 1
        raise LauncherFailed("no room for another process")

    def close(self) -> None: ...


def test_a_worker_that_cannot_be_started_is_an_error_in_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Broken()
    monkeypatch.setattr(sweep, "make_launcher", lambda kind, uuid: launcher)
    cases = plan_sweep(["model=tinyllama_1_1b", "device=t4", "max_seq_len=256"]).cases
    finished = sweep.run_sweep(cases, tmp_path, "run", timeout_s=5)
    (row,) = read_cases(tmp_path)[0].to_pylist()
    assert (row["outcome"], row["case_id"]) == ("error", finished.case_ids[0])
    assert "no room for another process" in row["error"]
    assert launcher.asked == 2


def test_a_listener_that_left_does_not_stop_the_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(sweep.Watcher):
        def start(self, case: object) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sweep, "make_launcher", lambda kind, uuid: Broken())
    cases = plan_sweep(["model=tinyllama_1_1b", "device=t4", "max_seq_len=256,512"]).cases
    sweep.run_sweep(cases, tmp_path, "run", timeout_s=5, watcher=Gone())
    assert read_cases(tmp_path)[0].num_rows == 2


@pytest.mark.parametrize("override", ["jobs=null,2", "timeout_s=1,2", "rerun=true,false", "results_dir=a,b"])
def test_one_sweep_is_run_in_one_way(override: str) -> None:
    with pytest.raises(BadInput, match="give one value"):
        plan_sweep(["model=tinyllama_1_1b", "device=t4", "max_seq_len=256", override])


def test_no_thread_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    monkeypatch.setattr(sweep, "make_launcher", lambda kind, uuid: Broken())
    sweep.run_sweep(plan_sweep(["model=tinyllama_1_1b", "device=t4", "max_seq_len=256"]).cases, tmp_path, "run", 5)
    assert threading.active_count() == before
