"""Jobs of a launcher, without one: what travels, where it lands, and what is said where it cannot be done.

By joblib, Ray and Slurm themselves it is `scripts/checks/launchers.py` that runs them.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import nvml
from bench.config import devices
from bench.config.cases import plan_sweep
from bench.config.settings import DeviceSettings
from bench.core.case import Search
from bench.core.errors import BadInput
from bench.jobs import queue, slurm
from bench.jobs.cells import Asked, Cell, cell_id, token_of, unassigned, write_cells, write_token
from bench.jobs.job import Told, do
from bench.jobs.machines import machines_for
from bench.jobs.schedulers import scheduler_of
from bench.launch import launchers
from bench.launch.versions import installed_versions
from bench.run import locks, tenants
from bench.run.place import place
from bench.run.resume import Stored
from bench.store.journal import Journal
from bench.store.store import compact, read_boundaries, read_cases
from tests.conftest import Program
from tests.run.fake_card import FakeCard
from tests.store.test_kinds import CASE

OPTIONS: dict[str, Any] = {
    "timeout_s": 20,
    "phase_timeout_s": None,
    "jobs": 1,
    "rerun": False,
    "retry": ["crash", "error", "timeout"],
    "allow_foreign": False,
}


@pytest.fixture(autouse=True)
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [nvml.Gpu(n, f"GPU-{n}", "NVIDIA L4", 24 << 30, "8.9", "580.1", "13.0") for n in (0, 1)]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(locks, "_SHARED", tmp_path)
    monkeypatch.setattr(tenants, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(nvml, "gpus", lambda: found)
    monkeypatch.setattr(nvml, "read", lambda uuid: nvml.Reading(used_bytes=0, processes=[]))
    monkeypatch.setattr(launchers, "make_launcher", lambda *of: FakeCard(512))


def _search(*, is_real: bool) -> Search:
    (search,) = plan_sweep(["model=tinyllama_1_1b", "device=t4", "auto_up_to=1024"]).searches
    return search.along(replace(search.longest, device=unassigned(1)[0])) if is_real else search


def _told(run_dir: Path, search: Search, **changed: Any) -> Told:
    versions = installed_versions()
    asked = Asked.of(search, versions)
    cells = {} if search.longest.device.is_simulated else {asked.key: cell_id(asked.key, {"partition": "gpu"})}
    cell = Cell([asked], versions, OPTIONS, [], cells)
    write_token(run_dir, "token")
    (key,) = write_cells(run_dir, [replace(cell, **changed)])
    return Told(str(run_dir), 0, key, "login", "token")


def test_a_job_finds_the_boundary_on_the_card_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = _search(is_real=True)
    told = _told(tmp_path / "run", search)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # as Slurm numbers it, or the second of a list
    slurms = {"JOB_ID": "27", "ARRAY_JOB_ID": "25", "ARRAY_TASK_ID": "1", "STEP_ID": "0", "STEP_GPUS": "1"}
    for name, value in slurms.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURMD_NODENAME", "node-7")
    assert do(told) is None
    rows = [*read_cases(tmp_path)[0].to_pylist(), *read_boundaries(tmp_path)[0].to_pylist()]
    assert {row["device_uuid"] for row in rows} == {"GPU-1"}
    told_by = ("scheduler", "scheduler_node", "scheduler_job", "scheduler_step", "scheduler_gpus")
    assert {tuple(row[name] for name in told_by) for row in rows} == {("slurm", "node-7", "25_1", "0", "1")}
    asked = Asked.of(search, installed_versions())
    stored = Stored.read(tmp_path, rerun=False)
    boundary = rows[-1]
    # Whichever card answered, what was asked in that partition is answered, and in another it is not.
    assert stored.cells == {cell_id(asked.key, {"partition": "gpu"}): boundary["boundary_id"]}
    assert (boundary["fits_at"], boundary["certified"]) == (512, True)
    assert cell_id(asked.key, {"partition": "other"}) not in stored.cells


def test_what_was_resolved_travels_and_nothing_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = _search(is_real=False)
    told = _told(tmp_path / "run", search)
    for name in ("combinations", "hydras_own"):  # neither Hydra nor a file of the catalogue
        monkeypatch.setattr(f"bench.config.compose.{name}", None)
    assert do(told) is None
    (row,) = read_boundaries(tmp_path)[0].to_pylist()
    assert row["boundary_id"] == search.boundary_id(installed_versions())
    assert (row["scheduler"], row["cell_id"]) == (None, None)


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (lambda run: (run / ".jobs" / "token").unlink(), "results_dir must be on a file system that all nodes share"),
        (lambda run: write_token(run, "another"), "does not see the .*run of login"),
        (lambda run: (run / ".jobs" / "cells" / "00000.json").write_text("{}"), "is not the one that the sweep was"),
        (lambda run: (run / ".jobs" / "cells" / "00000.json").unlink(), "cannot be read"),
    ],
)
def test_a_job_that_sees_another_folder_or_another_cell_does_nothing(
    tmp_path: Path, spoilt: Callable[[Path], Any], said: str
) -> None:
    told = _told(tmp_path / "run", _search(is_real=False))
    spoilt(tmp_path / "run")
    problem = do(told)
    assert problem is not None
    assert "\n" not in problem
    assert re.search(said, problem)
    assert read_cases(tmp_path)[0].num_rows == 0


def test_a_node_with_other_versions_a_smaller_card_or_without_the_model_says_so(tmp_path: Path) -> None:
    other = _told(tmp_path / "a", _search(is_real=False), versions={**installed_versions(), "torch_version": "0.1"})
    assert "install what the sweep was started with" in str(do(other))
    search = _search(is_real=True)
    large = search.along(replace(search.longest, vram_limit_bytes=40 << 30))
    assert "vram_limit=40.00 GiB: the job was given NVIDIA L4" in str(do(_told(tmp_path / "b", large)))
    model = replace(search.longest.model, path="/not/on/this/node")
    away = search.along(replace(search.longest, model=model))
    assert "model.path=/not/on/this/node is not there" in str(do(_told(tmp_path / "c", away)))


def test_a_scheduler_that_gives_gpus_is_planned_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_gpus", lambda: ([], "no driver"))
    machines_of = machines_for(scheduler_of("slurm"))
    ((card,),) = machines_of(DeviceSettings(kind="cuda"))
    assert (card.kind, card.uuid) == ("cuda", None)
    assert [len(machine) for machine in machines_of(DeviceSettings(kind="cuda", index=[0, 1]))] == [2]
    with pytest.raises(BadInput, match=r"device.index=3: it is slurm that chooses.*device.index=0$"):
        machines_of(DeviceSettings(kind="cuda", index=[3]))
    with pytest.raises(BadInput, match="it is the launcher that gives a job its GPU; leave out all"):
        machines_of(DeviceSettings(kind="cuda", index="all"))
    with pytest.raises(BadInput, match="no NVIDIA GPU"):
        machines_for(scheduler_of("joblib"))(DeviceSettings(kind="cuda"))


def test_where_no_scheduler_is_nothing_is_told_and_a_single_job_is_no_array() -> None:
    assert set(place({}).values()) == {None}
    told = place({"SLURM_JOB_ID": "30", "SLURMD_NODENAME": "n", "SLURM_JOB_GPUS": "0"})
    assert (told["scheduler_job"], told["scheduler_step"], told["scheduler_gpus"]) == ("30", None, "0")


def test_a_journal_of_another_host_outlives_a_merge_and_counts_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    journal.append({**CASE, "case_id": "one"})
    journal.close()
    theirs = journal.path.with_name("journal-another-host-77.jsonl")
    journal.path.rename(theirs)
    compact(tmp_path / "run")
    assert theirs.exists()  # its host may still write to it: this one might not see the lock
    assert read_cases(tmp_path)[0].num_rows == 1
    compact(tmp_path / "run", are_ended=True)
    assert not theirs.exists()
    assert read_cases(tmp_path)[0].num_rows == 1


def _program(folder: Path, name: str, line: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{line}\n")
    (folder / name).chmod((folder / name).stat().st_mode | stat.S_IXUSR)


def test_slurm_that_is_not_there_and_a_partition_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(BadInput, match="sbatch is not found"):
        slurm.require("gpu")
    for name in ("sbatch", "squeue", "scancel"):
        _program(tmp_path / "bin", name, "exit 0")
    _program(tmp_path / "bin", "sinfo", "echo gpu; echo cpu; echo gpu")
    slurm.require("gpu")
    with pytest.raises(BadInput, match=r"partition=gpus: no such partition; Slurm has cpu, gpu$"):
        slurm.require("gpus")
    _program(tmp_path / "bin", "sinfo", "echo 'Unable to contact controller' >&2; exit 1")
    with pytest.raises(BadInput, match=r"Slurm does not answer \(Unable to contact controller\)"):
        slurm.require(None)


def test_a_job_that_ended_without_a_word_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [["1_0 RUNNING"], ["1_0 RUNNING"], []]
    monkeypatch.setattr(slurm, "left", lambda name: states.pop(0) if len(states) > 1 else states[0])
    monkeypatch.setattr(queue, "_POLL_S", 0.01)
    monkeypatch.setattr(queue, "_GRACE_S", 0.05)
    with pytest.raises(queue.Lost, match="ended without a word"):
        queue.waited_for(lambda: threading.Event().wait(30), "name")
    states[:] = [["1_0 RUNNING"]]
    assert queue.waited_for(lambda: time.sleep(0.05) or 7, "name") == 7


def test_a_launcher_that_is_not_installed_is_told_in_a_line(in_process: Program) -> None:
    try:
        import hydra_plugins.hydra_ray_launcher  # noqa: F401
    except ImportError:
        refused = in_process("sweep", "model=tinyllama_1_1b", "device=t4", "hydra/launcher=ray")
        assert refused.returncode == 2
        assert refused.stderr == 'vram-bench: hydra/launcher=ray: not installed: pip install "vram-bench[ray]"\n'
    unknown = in_process("sweep", "model=tinyllama_1_1b", "device=t4", "hydra/launcher=pbs")
    assert unknown.returncode == 2
    assert "hydra/launcher=pbs: not installed: known are slurm" in unknown.stderr


def test_a_token_is_of_one_sweep(tmp_path: Path) -> None:
    assert token_of(tmp_path) is None
    write_token(tmp_path, "mine")
    assert token_of(tmp_path) == "mine"
    assert os.listdir(tmp_path) == [".jobs"]
