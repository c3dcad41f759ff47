"""The sweep around the cases, with launchers that are made up."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.config import hub
from bench.config.cases import Sweep, plan_sweep
from bench.core.case import Case, Search
from bench.core.errors import BadInput
from bench.core.messages import PhaseProgress
from bench.core.outcome import Phase
from bench.launch import launchers
from bench.launch.launcher import LauncherFailed, Started
from bench.run.progress import Progress
from bench.run.sweep import Finished, SweepOptions, run_sweep
from bench.store.store import read_boundaries, read_cases
from tests.run.fake_card import FakeCard

TINY = ("model=tinyllama_1_1b", "device=t4")  # goes up to 2,048 tokens: eight lengths

Row = dict[str, Any]


class Broken:
    """A launcher that can start nothing."""

    def __init__(self) -> None:
        self.asked = 0

    def start(self, request: str, records_fd: int, log_fd: int) -> Started:
        self.asked += 1
        raise LauncherFailed("no room for another process")

    def close(self) -> None: ...

    def kill(self) -> None: ...


class Listener(Progress):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def begin(self, searches: int, cases: int, known: int) -> None:
        self.told.append(("begin", searches, cases, known))

    def finish(self, case: Case, row: Mapping[str, Any]) -> None:
        self.told.append(("finish", case.max_seq_len, str(row["outcome"])))

    def probe(self, case: Case, row: Mapping[str, Any]) -> None:
        self.told.append(("probe", case.max_seq_len, str(row["outcome"])))

    def find(self, search: Search, boundary: Mapping[str, Any]) -> None:
        self.told.append(("find", boundary["fits_at"], str(boundary["outcome"])))


Run = Callable[..., Finished]


@pytest.fixture(autouse=True)
def no_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_shipped: None) -> None:
    """Nothing is predicted: these launchers record nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs what overrides ask for on a played card, in a run of its own each time."""
    runs: list[str] = []

    def run_on(card: FakeCard, *overrides: str, progress: Progress | None = None, **how: Any) -> Finished:
        monkeypatch.setattr(launchers, "make_launcher", lambda *of: card)
        planned = plan_sweep([*TINY, *overrides])
        runs.append(f"run-{len(runs)}")
        options = SweepOptions(tmp_path / "results", runs[-1], timeout_s=20, **how)
        return run_sweep(planned.cases, planned.searches, options, progress)

    return run_on


def cases(tmp_path: Path) -> list[Row]:
    return read_cases(tmp_path / "results")[0].sort_by("started_at").to_pylist()


def boundaries(tmp_path: Path) -> list[Row]:
    return read_boundaries(tmp_path / "results")[0].sort_by("finished_at").to_pylist()


def only(rows: list[Row]) -> Row:
    (row,) = rows
    return row


# What goes wrong around a case


def planned(*overrides: str) -> Sweep:
    return plan_sweep([*TINY, *overrides])


def test_a_worker_that_cannot_be_started_is_an_error_in_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Broken()
    monkeypatch.setattr(launchers, "make_launcher", lambda *of: launcher)
    finished = run_sweep(planned("max_seq_len=256").cases, [], SweepOptions(tmp_path / "results", "run", 5, jobs=1))
    row = only(cases(tmp_path))
    assert (row["outcome"], row["case_id"]) == ("error", finished.case_ids[0])
    assert "no room for another process" in row["error"]
    assert launcher.asked == 3  # once for what predictions need, twice for the case


def test_a_listener_that_left_does_not_stop_the_measuring(tmp_path: Path, run: Run) -> None:
    class Gone(Progress):
        def begin(self, searches: int, cases: int, known: int) -> None:
            raise BrokenPipeError

    run(FakeCard(1024), "max_seq_len=256,auto", progress=Gone())
    assert {row["max_seq_len"] for row in cases(tmp_path)} >= {256, 1024, 1280}
    assert only(boundaries(tmp_path))["fits_at"] == 1024


@pytest.mark.parametrize("override", ["jobs=null,2", "timeout_s=1,2", "rerun=true,false", "results_dir=a,b"])
def test_one_sweep_is_run_in_one_way(override: str) -> None:
    with pytest.raises(BadInput, match="give one value"):
        planned("max_seq_len=256", override)


def test_no_thread_is_left_behind(run: Run) -> None:
    before = set(threading.enumerate())
    run(FakeCard(1024), "max_seq_len=auto,256")
    assert set(threading.enumerate()) <= before


def test_recordings_are_told_of_one_by_one_even_those_that_came_to_nothing(run: Run) -> None:
    class Preparing(Progress):
        def prepare(self, done: int, total: int) -> None:
            told.append((done, total))

    told: list[tuple[int, int]] = []
    run(FakeCard(2048), "max_seq_len=256", "cache=FP16,Q4", progress=Preparing())
    total = told[0][1]
    assert total >= 2
    assert told == [(done, total) for done in range(total + 1)]


# Cells


def test_a_boundary_is_searched_and_told_of(tmp_path: Path, run: Run) -> None:
    listener = Listener()
    card = FakeCard(1000)
    finished = run(card, progress=listener)
    row = only(boundaries(tmp_path))
    assert (row["fits_at"], row["fails_at"], row["certified"], row["outcome"]) == (768, 1024, True, "fits")
    assert (row["boundary_id"], row["run_id"]) == (finished.boundary_ids[0], "run-0")
    assert row["predicted_fits_at"] is None
    assert row["peak_device_bytes"] == 1768
    assert row["headroom_bytes"] == row["device_total_bytes"] - 1768
    assert row["case_ids"] == [found["case_id"] for found in cases(tmp_path)]
    assert listener.told[0] == ("begin", 1, 0, 0)
    assert [told[1] for told in listener.told if told[0] == "probe"] == card.lengths
    assert listener.told[-1] == ("find", 768, "fits")


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_case_that_its_cell_also_probes_is_run_once(tmp_path: Path, run: Run, jobs: int) -> None:
    listener = Listener()
    card = FakeCard(1000)
    lengths = ",".join(str(length) for length in range(256, 2049, 256))
    finished = run(card, f"max_seq_len=auto,{lengths}", progress=listener, jobs=jobs)
    assert sorted(card.lengths) == list(range(256, 2049, 256))
    assert sorted(row["case_id"] for row in cases(tmp_path)) == sorted(finished.case_ids)
    told = Counter(kind for kind, *_ in listener.told)
    assert (told["begin"], told["finish"], told["find"]) == (1, 8, 1)


def test_a_search_goes_on_from_what_other_runs_have_found(tmp_path: Path, run: Run) -> None:
    run(FakeCard(1000), "max_seq_len=512,1024,2048")
    card = FakeCard(1000)
    run(card)
    assert card.lengths == [768]
    row = only(boundaries(tmp_path))
    assert (row["fits_at"], row["fails_at"], row["certified"], row["probes"]) == (768, 1024, True, 2)
    assert row["run_id"] == "run-1"
    again = FakeCard(1000)
    assert run(again).run_dir is None
    assert again.lengths == []


def test_rows_of_another_cell_or_another_driver_are_not_asked(tmp_path: Path, run: Run) -> None:
    for other in (["cache=Q4"], ["lazy=true"], ["vram_limit=8GiB"], ["head_bits=8"], ["device=l4"], ["batch_size=2"]):
        run(FakeCard(2048), "max_seq_len=2048", *other)
    card = FakeCard(1000)
    run(card)
    assert only(boundaries(tmp_path))["fits_at"] == 768


def test_a_stop_in_the_middle_keeps_the_probes_and_the_next_run_goes_on(tmp_path: Path, run: Run) -> None:
    class Stopping(Progress):
        def probe(self, case: Case, row: Mapping[str, Any]) -> None:
            raise KeyboardInterrupt

    first, second, undisturbed = FakeCard(1500), FakeCard(1500), FakeCard(1500)
    assert run(first, progress=Stopping()).interrupted
    assert len(first.lengths) == len(cases(tmp_path)) == 1
    assert boundaries(tmp_path) == []
    assert not run(second).interrupted
    run(undisturbed, rerun=True)
    assert first.lengths + second.lengths == undisturbed.lengths
    assert [(row["fits_at"], row["fails_at"], row["certified"]) for row in boundaries(tmp_path)] == [
        (1280, 1536, True)
    ] * 2


def test_a_crash_ends_the_search_and_the_next_run_goes_on(tmp_path: Path, run: Run) -> None:
    first = FakeCard(1500, ends={1536: "crash"})
    run(first, "cache=FP16")
    row = only(boundaries(tmp_path))
    assert (row["outcome"], row["certified"], row["fits_at"], row["fails_at"]) == ("crash", False, 1024, None)
    assert "SIGSEGV" in row["error"]
    assert row["attention"] == "flash"
    assert {found["outcome"] for found in cases(tmp_path)} == {"fits", "crash"}
    second = FakeCard(1500)
    run(second, "cache=FP16")
    assert sorted(second.lengths) == [1280, 1536]
    row = boundaries(tmp_path)[-1]
    assert (row["outcome"], row["certified"], row["fits_at"], row["fails_at"]) == ("fits", True, 1280, 1536)


def test_what_contradicts_an_earlier_run_is_measured_again(tmp_path: Path, run: Run) -> None:
    """What fitted then does not fit now: the failures below are measured twice."""
    run(FakeCard(2048), "max_seq_len=1536")
    run(FakeCard(2048, ends={1024: "oom"}), "max_seq_len=1024")
    card = FakeCard(1000)
    run(card)
    assert card.lengths.count(1024) == 1  # its second failure
    row = only(boundaries(tmp_path))
    assert (row["fits_at"], row["fails_at"]) == (768, 1024)
    assert (row["certified"], row["contradictory"]) == (True, True)


def test_rerun_measures_all_again_but_nothing_twice(tmp_path: Path, run: Run) -> None:
    lengths = "max_seq_len=auto,768,1024"
    run(FakeCard(1000), lengths)
    card = FakeCard(1500)
    run(card, lengths, rerun=True)
    assert max(Counter(card.lengths).values()) == 1
    assert {768, 1024} <= set(card.lengths)
    assert [row["fits_at"] for row in boundaries(tmp_path)] == [768, 1280]


def test_the_last_word_counts(tmp_path: Path, run: Run) -> None:
    """A crash after an answer: it is tried again."""
    run(FakeCard(2048), "max_seq_len=512")
    run(FakeCard(2048, ends={512: "crash"}), "max_seq_len=512", rerun=True)
    card = FakeCard(2048)
    run(card, "max_seq_len=512")
    assert card.lengths == [512]
    assert [row["outcome"] for row in cases(tmp_path)] == ["fits", "crash", "fits"]


def test_a_model_that_is_published_in_another_type_is_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = FakeCard(1000)
    monkeypatch.setattr(launchers, "make_launcher", lambda *of: card)
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "max_position_embeddings": 4096}
    for number, dtype in enumerate(("bfloat16", "float16", "bfloat16")):
        folder = tmp_path / f"{number}" / "tiny"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": dtype}))
        sweep = plan_sweep([f"model.path={folder}", "device=t4", "bpw=16", "max_seq_len=512"])
        run_sweep(sweep.cases, [], SweepOptions(tmp_path / "results", f"run-{number}", timeout_s=20))
    bfloat16, float16 = cases(tmp_path)
    assert bfloat16["model"] == float16["model"]
    assert bfloat16["model_fingerprint"] != float16["model_fingerprint"]
    assert card.lengths == [512, 512]


# Weights


def test_weights_are_fetched_for_what_is_to_be_run_and_not_for_what_is_stored(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def download(model: Any) -> Any:
        fetched.append(model.name)
        return replace(model, path=str(tmp_path))

    monkeypatch.setattr(hub, "download", download)
    monkeypatch.setattr(launchers, "make_launcher", lambda *of: FakeCard(1000))
    (search,) = planned().searches
    model = replace(search.longest.model, repo="org/name", revision="main", path="elsewhere", bpw=4.0)
    device = replace(search.longest.device, kind="cuda", index=0, uuid="GPU-of-nobody")
    mine = Search(replace(search.longest, model=model, device=device, head_bits=None))
    for number in range(2):
        run_sweep([mine.at(512)], [mine], SweepOptions(tmp_path / "results", f"run-{number}", timeout_s=20))
    assert fetched == [model.name] * 2
    assert only(boundaries(tmp_path))["fits_at"] == 768


def test_how_far_a_phase_is_is_told_and_not_stored(run: Run, tmp_path: Path) -> None:
    told: list[tuple[int, PhaseProgress]] = []

    class Following(Progress):
        def advance(self, case: Case, reached: PhaseProgress) -> None:
            told.append((case.max_seq_len, reached))

    run(FakeCard(1024), "max_seq_len=256", progress=Following())
    assert told == [(256, PhaseProgress(Phase.LOAD, 1, 2, "modules"))]
    (row,) = read_cases(tmp_path / "results")[0].to_pylist()
    assert "modules" not in str(row)
