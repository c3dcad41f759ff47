"""`report`, `doctor` and `--help` from the outside."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import nvml
from bench.commands import doctor
from bench.core.columns import SCHEMA_VERSION
from bench.nvml import Gpu, Link
from bench.store.journal import Journal
from bench.store.schema import Kind
from bench.store.store import compact
from tests.conftest import Program

TINY = ("model=tinyllama_1_1b", "device=rtx_3060_12gb", "max_seq_len=256,512", "cache=FP16,Q4")


@pytest.fixture(scope="module")
def swept(called: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a small sweep."""
    folder = tmp_path_factory.mktemp("swept")
    assert called("sweep", *TINY, cwd=folder).returncode == 0
    return folder / "results"


@pytest.fixture
def stored(swept: Path, tmp_path: Path) -> Path:
    """The same, where the program looks for them."""
    return shutil.copytree(swept, tmp_path / "results")


def test_a_report_is_made_again_from_rows_alone(in_process: Program, tmp_path: Path, stored: Path) -> None:
    done = in_process("report", "--out", "out", "--json", plots=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["cases"], document["boundaries"]) == (4, 0)
    assert sorted(Path(file).name for file in document["files"]) == [
        "cases.csv",
        "recommendations.csv",
        "recommendations.md",
        "report.html",
        "rtx_3060_12gb-peaks.png",
        "rtx_3060_12gb-peaks.svg",
        "tables.md",
        "tradeoffs.csv",
        "tradeoffs.md",
    ]
    assert all((tmp_path / file).stat().st_size > 0 for file in document["files"])
    assert "simulated" in (tmp_path / "out" / "tables.md").read_text()


def store_boundary(run_dir: Path, case_ids: list[str]) -> None:
    """A boundary as a search would have written it."""
    row = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_dir.name,
        "boundary_id": "b",
        "finished_at": "2026-02-03T04:05:06+00:00",
        "device_name": "rtx_3060_12gb",
        "device_kind": "simulated",
        "model": "tinyllama_1_1b",
        "bpw": 4.0,
        "cache": "FP16",
        "lazy": False,
        "attention": "flash",
        "native_max_seq_len": 2048,
        "outcome": "fits",
        "fits_at": 2048,
        "certified": True,
        "contradictory": False,
        "case_ids": case_ids,
    }
    journal = Journal(run_dir, Kind.BOUNDARIES)
    journal.append(row)
    journal.close()
    compact(run_dir)


def test_boundaries_alone_can_be_reported(in_process: Program, tmp_path: Path) -> None:
    store_boundary(tmp_path / "results" / "run", [])
    done = in_process("report")
    assert done.returncode == 0, done.stderr
    assert "2,048 max" in done.stdout
    document = json.loads(in_process("report", "--json", plots=True).stdout)
    assert (document["cases"], document["boundaries"]) == (0, 1)
    assert sorted(Path(file).name for file in document["files"]) == [
        "boundaries.csv",
        "recommendations.csv",
        "recommendations.md",
        "report.html",
        "rtx_3060_12gb-boundary.png",
        "rtx_3060_12gb-boundary.svg",
        "tables.md",
        "tradeoffs.csv",
        "tradeoffs.md",
    ]


def test_boundaries_and_cases_are_reported_together(in_process: Program, stored: Path) -> None:
    store_boundary(stored / "search", [])
    done = in_process("report")
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("2,048 max") < done.stdout.index("fits up to")
    document = json.loads(in_process("report", "--json").stdout)
    assert (document["cases"], document["boundaries"], document["skipped"]) == (4, 1, [])


def test_the_document_carries_the_rows(in_process: Program, stored: Path) -> None:
    store_boundary(stored / "search", [])
    document = json.loads(in_process("report", "--json", "--context", "512").stdout)
    assert len(document["case_rows"]) == document["cases"] == 4
    assert {row["outcome"] for row in document["case_rows"]} <= {"fits", "oom"}
    (boundary,) = document["boundary_rows"]
    assert (boundary["fits_at"], boundary["certified"], boundary["fails_at"]) == (2048, True, None)
    assert boundary["finished_at"] == "2026-02-03T04:05:06+00:00"
    assert boundary["case_ids"] == []
    policies = [(row["policy"], row["wanted_context"]) for row in document["recommendations"]]
    assert {("quality", 512), ("fastest", 512), ("longest", None)} <= set(policies)


def test_report_imports_no_torch(tmp_path: Path, stored: Path) -> None:
    script = (
        "import sys; from bench.__main__ import main; main(['report', '--json']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("folder", "told"), [("nowhere", "no such directory"), (".", "no rows")])
def test_nothing_to_report_is_told(in_process: Program, folder: str, told: str) -> None:
    done = in_process("report", "--results", folder)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_a_file_of_results_is_not_taken_for_their_folder(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "cases.parquet").touch()
    done = in_process("report", "--results", "cases.parquet")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cases.parquet: it is a file; give the folder that it is in, or --out DIR for its report" in done.stderr


def test_foreign_files_are_named_and_skipped(in_process: Program, stored: Path) -> None:
    (stored / "other.parquet").write_bytes(b"not parquet")
    done = in_process("report")
    assert done.returncode == 1
    assert done.stderr.count("other.parquet") == 1
    assert "tinyllama_1_1b" in done.stdout


def test_doctor_answers_everywhere(in_process: Program) -> None:
    done = in_process("doctor", "--json")
    assert done.returncode == 0
    found = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert {"torch", "exllamav2", "extension", "flash-attn", "xformers", "allocator", "isolation"} <= set(found)
    text = in_process("doctor").stdout
    assert "exllamav2" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", [(), ("plan",), ("sweep",), ("report",), ("compare",), ("doctor",)])
def test_help_answers_with_an_example(in_process: Program, command: tuple[str, ...]) -> None:
    done = in_process(*command, "--help")
    assert done.returncode == 0
    assert "example: vram-bench" in done.stdout


def test_an_unknown_command_is_bad_input(in_process: Program) -> None:
    assert in_process("swep").returncode == 2


def test_a_report_recommends_what_was_wished_for(in_process: Program, tmp_path: Path, stored: Path) -> None:
    figures = tmp_path / "quality.csv"
    figures.write_text("model,bpw,cache,quality\ntinyllama_1_1b,4,FP16,7.77\n")
    done = in_process("report", "--context", "512", "--headroom", "1GiB", "--quality", str(figures), "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "quality, 512" in done.stdout
    page = (tmp_path / "out" / "recommendations.md").read_text()
    assert "| tinyllama_1_1b | quality, 512 | 4 | FP16 | load | 512 |" in page
    assert "leave 1.00 GiB of the card" in page
    assert "7.77" in page


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--context", "8kB", "lengths in tokens"),
        ("--context", "0", "lengths in tokens"),
        ("--headroom", "some", "not a size"),
        ("--headroom", "1", "did you mean 1GiB?"),
        ("--quality", "nowhere.csv", "no such file"),
    ],
)
def test_wishes_that_cannot_be_read_are_bad_input(in_process: Program, option: str, value: str, told: str) -> None:
    done = in_process("report", option, value)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_truncated_files_are_told(in_process: Program, stored: Path) -> None:
    (cases,) = stored.rglob("cases.parquet")
    (stored / "cut.parquet").write_bytes(cases.read_bytes()[:-100])
    done = in_process("report")
    assert done.returncode == 1
    assert "cut.parquet" in done.stderr
    assert "quality, 2,048" in done.stdout


@pytest.mark.parametrize(
    ("link", "said"),
    [
        (Link("PHB", False), "copy through the host's memory (nvidia-smi topo -m: PHB)"),
        (Link("PIX", True), "reach each other's memory (nvidia-smi topo -m: PIX)"),
        (Link(None, None), "reach is not told"),
    ],
)
def test_two_gpus_are_told_how_they_are_connected(monkeypatch: pytest.MonkeyPatch, link: Link, said: str) -> None:
    two = [Gpu(n, f"GPU-{n}", "NVIDIA Some GPU", 24 << 30, "8.9", "580.1", "13.0") for n in (0, 1)]
    monkeypatch.setattr(nvml, "gpus", lambda: two)
    monkeypatch.setattr(nvml, "link", lambda one, other: link)
    monkeypatch.setattr(nvml, "read", lambda uuid: nvml.Reading())
    (finding,) = (finding for finding in doctor.examine() if finding.what == "GPU 0 and 1")
    assert (finding.found, finding.remedy) == (said, None)


@pytest.mark.parametrize(("status", "peer_access"), [(0, True), (3, False)])
def test_a_link_is_what_the_driver_says(monkeypatch: pytest.MonkeyPatch, status: int, peer_access: bool) -> None:
    pynvml = nvml.pynvml
    driver = SimpleNamespace(
        NVMLError=pynvml.NVMLError,
        NVML_P2P_CAPS_INDEX_READ=pynvml.NVML_P2P_CAPS_INDEX_READ,
        NVML_P2P_STATUS_OK=pynvml.NVML_P2P_STATUS_OK,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTopologyCommonAncestor=lambda one, other: pynvml.NVML_TOPOLOGY_HOSTBRIDGE,
        nvmlDeviceGetP2PStatus=lambda one, other, what: status,
    )
    monkeypatch.setattr(nvml, "pynvml", driver)
    assert nvml.link("GPU-0", "GPU-1") == Link("PHB", peer_access)
