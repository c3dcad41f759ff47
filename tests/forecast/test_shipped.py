"""Recordings that come with the program: read back as they were, and not at all where they are not what is wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.core.case import DEFAULT_ENGINE, ModelSpec
from bench.forecast import packs, shipped
from bench.forecast.packs import Unreadable, read_pack
from bench.forecast.shipped import FOLDER, Origin, Shipped, path_of, ship
from bench.trace.passes import NoPrediction

MODEL = ModelSpec("made_up", {}, "0123456789abcdef0123")
TRACE = {"num_layers": 3}, {"load": np.arange(-6, 6).reshape(3, 4), "cache": np.zeros((0, 4), np.int64)}
TENSORS = {"a.weight": 512, "b.weight": 1 << 40}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = {"t.npz": TRACE, "refused.npz": ({"reason": "it has no layers"}, {})}
    ship(tmp_path, Origin.now(MODEL, DEFAULT_ENGINE), made, {"4.json": TENSORS, "5.json": TENSORS})
    return tmp_path


def has(folder: Path) -> bool:
    return Shipped(folder).has(MODEL, DEFAULT_ENGINE, "t.npz")


def test_what_is_read_is_what_was_written(folder: Path) -> None:
    found = Shipped(folder)
    assert found.has(MODEL, DEFAULT_ENGINE, "t.npz")
    about, arrays = found.arrays("t.npz")
    assert about == TRACE[0]
    assert arrays.keys() == TRACE[1].keys()
    for name, array in arrays.items():
        assert array.dtype == np.int64
        assert np.array_equal(array, TRACE[1][name])
    assert found.tensor_bytes("4.json") == found.tensor_bytes("5.json") == TENSORS
    with pytest.raises(NoPrediction, match="no layers"):
        found.arrays("refused.npz")
    assert not found.has(MODEL, DEFAULT_ENGINE, "another.npz")
    assert not Shipped(folder).has(replace(MODEL, fingerprint="f" * 20), DEFAULT_ENGINE, "t.npz")


def test_a_file_with_any_byte_changed_is_as_if_it_were_not_there(folder: Path) -> None:
    path = path_of(folder, DEFAULT_ENGINE, MODEL.fingerprint)
    whole = path.read_bytes()
    for at in (0, whole.index(b"sha256") + 12, whole.index(b"\n") + 3, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert not has(folder)
    for changed in (whole[:-1], whole[: whole.index(b"\n")], b"", b"[]\n"):
        path.write_bytes(changed)
        assert not has(folder)
    path.write_bytes(whole)
    assert has(folder)


def test_a_file_of_another_format_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "FORMAT", packs.FORMAT + 1)
    assert not has(folder)
    with pytest.raises(Unreadable, match="format"):
        read_pack(path_of(folder, DEFAULT_ENGINE, MODEL.fingerprint))


def test_where_the_engine_is_what_is_of_another_version_is_recorded_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Origin.now(MODEL, DEFAULT_ENGINE)
    assert now.holds(now)
    for other in (
        replace(now, engine_version="0.0.1"),
        replace(now, torch_version="1.0"),
        replace(now, sources="of an older program"),
    ):
        assert not other.holds(now)
        assert other.holds(replace(now, engine_version=None))  # nothing here could make it again
    monkeypatch.setattr(shipped, "recording_digest", lambda engine: "changed")
    assert not has(folder)


def test_what_comes_with_the_program_can_be_read() -> None:
    files = sorted(FOLDER.glob("*.recordings"))
    assert len(files) > 20
    assert sum(file.stat().st_size for file in files) < 10 << 20
    for file in files:
        origin, blocks = read_pack(file)
        assert file == path_of(FOLDER, origin["engine"], origin["fingerprint"])
        assert blocks
