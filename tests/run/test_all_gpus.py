"""Several equal GPUs through one sweep, by a driver and by cards that are made up."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import nvml
from bench.config import devices
from bench.config.cases import plan_sweep
from bench.config.devices import resolve_devices, resolve_machines
from bench.config.settings import DeviceSettings
from bench.core.alternatives import alternatives
from bench.core.case import Case, Search
from bench.core.errors import BadInput
from bench.launch import launchers
from bench.launch.environment import child_environment
from bench.launch.fresh_interpreter import StartedProcess
from bench.launch.versions import installed_versions
from bench.run import locks, tenants
from bench.run.locks import reserved
from bench.run.resume import Stored
from bench.run.sweep import Finished, SweepOptions, run_sweep
from bench.store.store import read_boundaries, read_cases
from tests.run.fake_card import FakeCard

LENGTHS = "max_seq_len=256,512,768,1024"


def _gpu(number: int, name: str = "NVIDIA L4", gib: int = 24) -> nvml.Gpu:
    return nvml.Gpu(number, f"GPU-{number}", name, gib << 30, "8.9", "580.1", "13.0")


@pytest.fixture(autouse=True)
def two_alike_and_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(locks, "_SHARED", tmp_path)
    monkeypatch.setattr(tenants, "_PATIENCE_S", 0.3)
    found = [_gpu(0), _gpu(1, "NVIDIA A10", 23), _gpu(2)]
    monkeypatch.setattr(devices, "find_gpus", lambda: (found, None))
    monkeypatch.setattr(nvml, "read", lambda uuid: nvml.Reading(used_bytes=0, processes=[]))


class Rig:
    """Played cards, told apart by the GPUs that their children see; the first cases on each wait for `meeting`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, meeting: threading.Barrier | None = None) -> None:
        self.cards: dict[str, FakeCard] = defaultdict(FakeCard)
        self.meeting = meeting
        monkeypatch.setattr(launchers, "make_launcher", self.launcher)

    def launcher(self, kind: str, engine: str, uuids: Sequence[str] = (), allocator: str = "native") -> Any:
        rig, visible = self, child_environment(kind, uuids, allocator)["CUDA_VISIBLE_DEVICES"]

        class Launcher(FakeCard):
            def start(self, request: str, records_fd: int, log_fd: int) -> StartedProcess:
                if visible and rig.meeting is not None and not rig.cards[visible].lengths:
                    rig.meeting.wait(10)
                return rig.cards[visible].start(request, records_fd, log_fd)

        return Launcher()

    def sweep(self, results: Path, run_id: str, *overrides: str) -> Finished:
        return run_sweep(*on_all(*overrides), SweepOptions(results, run_id, timeout_s=20))

    @property
    def measured(self) -> dict[str, list[int]]:
        """The lengths that were run on each real card."""
        return {uuid: card.lengths for uuid, card in self.cards.items() if uuid and card.lengths}


def on_all(*overrides: str) -> tuple[list[Case], list[Search]]:
    """What the overrides ask for, on the kind of GPU of which there are two."""
    planned = plan_sweep(["model=tinyllama_1_1b", "device=t4", *overrides])
    (card,), _ = resolve_machines(DeviceSettings(kind="cuda", index="all"))
    return (
        [replace(case, device=card) for case in planned.cases],
        [search.along(replace(search.longest, device=card)) for search in planned.searches],
    )


def rows(results: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_cases(results)[0].to_pylist()
    return found


def test_all_is_a_machine_for_each_kind_of_gpu() -> None:
    machines = resolve_machines(DeviceSettings(kind="auto", index="all"))
    assert [[card.uuid for card in (first, *first.equals)] for (first,) in machines] == [["GPU-0", "GPU-2"], ["GPU-1"]]
    ((alone,),) = resolve_machines(DeviceSettings(kind="cuda", index=[2]))
    assert (alone.uuid, alone.equals) == ("GPU-2", ())


def test_what_may_be_done_on_either_has_the_id_that_it_has_on_that_one() -> None:
    (case,), _ = on_all("max_seq_len=256")
    each_alone = [replace(case, device=resolve_devices(DeviceSettings(kind="cuda", index=[n]))[0]) for n in (0, 2)]
    ids = [each.case_id({}) for each in alternatives(case) if isinstance(each, Case)]
    assert ids == [each.case_id({}) for each in each_alone]
    assert len(set(ids)) == 2


def test_equal_cards_share_the_cases_each_pinned_by_its_uuid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch, threading.Barrier(2))  # neither goes on before both have begun: they run at the same time
    finished = rig.sweep(tmp_path, "run", LENGTHS)
    assert set(rig.measured) == {"GPU-0", "GPU-2"}
    assert sorted(length for lengths in rig.measured.values() for length in lengths) == [256, 512, 768, 1024]
    assert all(row["max_seq_len"] in rig.measured[row["device_uuid"]] for row in rows(tmp_path))
    assert sorted(finished.case_ids) == sorted(row["case_id"] for row in rows(tmp_path))


def test_a_search_is_walked_on_one_card_and_known_on_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = Rig(monkeypatch, threading.Barrier(2)).sweep(tmp_path, "run", "cache=FP16,Q4")
    found = read_boundaries(tmp_path)[0].to_pylist()
    assert {row["device_uuid"] for row in found} == {"GPU-0", "GPU-2"}
    assert {row["boundary_id"] for row in found} == set(finished.boundary_ids)
    where = {row["case_id"]: row["device_uuid"] for row in rows(tmp_path)}
    assert all(where[case_id] == row["device_uuid"] for row in found for case_id in row["case_ids"])
    again = Rig(monkeypatch)
    resumed = again.sweep(tmp_path, "again", "cache=FP16,Q4")
    assert (resumed.run_dir, resumed.boundary_ids, again.measured) == (None, finished.boundary_ids, {})
    stored = Stored.read(tmp_path, rerun=False)
    _, searches = on_all("cache=FP16,Q4")
    assert [stored.answer(search, installed_versions()) for search in searches] == [("fits", 2048)] * 2


def test_a_card_that_another_sweep_uses_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(monkeypatch)
    thread = threading.Thread(target=rig.sweep, args=(tmp_path, "run", LENGTHS))
    with reserved(["GPU-0"], threading.Event()):
        thread.start()
        deadline = time.monotonic() + 20
        while len(rig.cards["GPU-2"].lengths) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert set(rig.measured) == {"GPU-2"}
    thread.join(20)
    assert [len(rig.measured[uuid]) for uuid in ("GPU-0", "GPU-2")] == [1, 3]


def test_all_is_refused_where_there_is_no_gpu_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("l4", "2xl4"):
        with pytest.raises(BadInput, match=f"{device} is simulated"):
            plan_sweep(["model=tinyllama_1_1b", f"device={device}", "device.index=all"])
    with pytest.raises(BadInput, match="one GPU"):
        resolve_devices(DeviceSettings(kind="cuda", index="all"))
    with pytest.raises(BadInput, match=r"those of several: 0\+1, or all"):
        plan_sweep(["model=tinyllama_1_1b", "device=cuda", "device.index=every"])
    monkeypatch.setattr(devices, "find_gpus", lambda: ([], "no driver"))
    for device in ("cuda", "auto"):
        with pytest.raises(BadInput, match="no NVIDIA GPU"):
            plan_sweep(["model=tinyllama_1_1b", f"device={device}", "device.index=all"])
