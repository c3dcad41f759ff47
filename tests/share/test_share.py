"""Rows packed to be sent: nothing of anybody is in them, and what is read back is what was packed."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import BadInput
from bench.share import unpack
from bench.share.hidden import Hidden
from bench.share.opened import opened
from bench.share.pack import pack
from bench.store.journal import Journal
from bench.store.schema import Kind
from bench.store.store import read_boundaries, read_cases
from tests.conftest import Program
from tests.store.test_kinds import ROWS

UUID = "GPU-8f0f3a52-1b2c-4d5e-9f00-112233445566"
SECRETS = ("alice", "lab-node-7", "lab-node-7.example.org", UUID, "8f0f3a52", "secret-project", "10.1.2.3")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Rows that name a user, a host, a card and folders wherever a row may."""
    documents: dict[str, Any] = {
        "environment": json.dumps({"HOME": "/home/alice", "USER": "alice", "PATH": "/home/alice/bin:/usr/bin"}),
        "telemetry": json.dumps({"processes": [{"pid": 1, "name": "/data/secret-project/run.py"}], "uuid": UUID}),
        "error": "/home/alice/venv/lib/python3.11/site-packages/exllamav2/ext.py: CUDA out of memory on lab-node-7",
        "notes": [f"others took memory of {UUID} from 10.1.2.3", "asked by alice@example.org"],
        "driver_version": "550.54.14.1",
    }
    for number, host in enumerate(("lab-node-7.example.org", "lab-node-8")):
        own = {"host": host, "device_kind": "cuda", "device_uuid": UUID if number == 0 else "GPU-other"}
        folder = tmp_path / "results" / f"run-{number}"
        with_cases, with_boundaries = Journal(folder), Journal(folder, Kind.BOUNDARIES)
        with_cases.append({**ROWS[Kind.CASES], "case_id": f"case-{number}", "run_id": folder.name, **own, **documents})
        with_boundaries.append({**ROWS[Kind.BOUNDARIES], "boundary_id": f"b-{number}", "run_id": folder.name, **own})
        with_cases.close()
        with_boundaries.close()
    return tmp_path / "results"


def test_a_pack_names_nobody_and_is_read_as_what_was_packed(results: Path, tmp_path: Path) -> None:
    packed = pack([results], tmp_path / "rows.zip")
    assert packed.rows == {Kind.CASES: 2, Kind.BOUNDARIES: 2}
    with opened([packed.path]) as there:
        told = read_cases(*there.folders)[0].to_pylist()
        found = read_boundaries(*there.folders)[0].to_pylist()
    text = json.dumps([told, found], default=str)
    assert [secret for secret in SECRETS if secret in text] == []
    by_case = {row["case_id"]: row for row in told}
    first = by_case["case-0"]
    assert first["error"].endswith("/python3.11/site-packages/exllamav2/ext.py: CUDA out of memory on " + first["host"])
    assert first["driver_version"] == "550.54.14.1"
    assert first["device_uuid"] in first["telemetry"]
    assert first["host"] != by_case["case-1"]["host"]
    assert {row["host"] for row in found} == {row["host"] for row in told} == set(packed.hosts)


def test_a_card_and_its_host_have_the_same_names_in_each_pack(results: Path, tmp_path: Path) -> None:
    one, other = (pack([results], tmp_path / name) for name in ("one.zip", "other.zip"))
    assert one.hosts == other.hosts
    with opened([one.path, other.path, results]) as there:
        rows = read_cases(*there.folders)[0].to_pylist()
    assert len(rows) == 2  # one row of one run is one row, wherever it is written


def test_hosts_without_a_card_cannot_be_guessed_by_their_name() -> None:
    assert Hidden({"vm": []}, []).host("vm") != Hidden({"vm": []}, []).host("vm")


def test_the_program_packs_and_reports(results: Path, in_process: Program, tmp_path: Path) -> None:
    done = in_process("share", str(results), "--out", "new.zip")
    assert done.returncode == 0, done.stderr
    assert "new.zip: 2 cases, 2 boundaries" in done.stdout
    report = in_process("report", "new.zip", str(results), "--out", "shown", "--json")
    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["cases"] == 2
    refused = in_process("report", "new.zip")
    assert (refused.returncode, "--out DIR" in refused.stderr) == (2, True)
    assert in_process("share", str(results), "--out", "new.tar").returncode == 2
    assert in_process("share", "nowhere").returncode == 2


def _zip(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"../cases.parquet": b""}, "other files"),
        ({"/etc/cases.parquet": b""}, "other files"),
        ({"README.md": b""}, "none of them"),
        ({"cases.parquet": b"", "run.py": b""}, "other files"),
        ({"cases.parquet": bytes(2000)}, "2,000 bytes; 1,000 are read at most"),
    ],
)
def test_what_is_no_pack_of_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], said: str
) -> None:
    monkeypatch.setattr(unpack, "MOST_BYTES", 1000)
    path = _zip(tmp_path / "bad.zip", **members)
    with pytest.raises(BadInput, match=said):
        unpack.unpack(path, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_size_that_is_a_lie_a_link_and_bytes_that_are_damaged_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "MOST_BYTES", 1000)
    content = bytearray(_zip(tmp_path / "lie.zip", **{"cases.parquet": bytes(2000)}).read_bytes())
    lying = content.replace((2000).to_bytes(4, "little"), (900).to_bytes(4, "little"))
    (tmp_path / "lie.zip").write_bytes(lying)
    (tmp_path / "torn.zip").write_bytes(content[:-30])
    linked = io.BytesIO()
    with zipfile.ZipFile(linked, "w") as archive:
        link = zipfile.ZipInfo("cases.parquet")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    (tmp_path / "link.zip").write_bytes(linked.getvalue())
    for name in ("lie", "torn"):
        with pytest.raises(BadInput, match=r"no pack of rows"):
            unpack.unpack(tmp_path / f"{name}.zip", tmp_path / name)
    unpack.unpack(tmp_path / "link.zip", tmp_path / "link")
    assert (tmp_path / "link" / "cases.parquet").read_bytes() == b"/etc/passwd"  # its own bytes: no link is made
    assert not (tmp_path / "link" / "cases.parquet").is_symlink()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_compress_are_refused_before_anything_is_read(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w", method) as archive:
        archive.writestr("cases.parquet", bytes(2000))
    with pytest.raises(BadInput, match=r"cases\.parquet is compressed in another way than stored or deflated"):
        unpack.unpack(tmp_path / "other.zip", tmp_path / "there")
    assert not (tmp_path / "there").exists()
