"""Making synthetic checkpoints, where the command line cannot easily go."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from bench.core.errors import BadInput
from bench.synth import make as synth
from bench.synth.layout import Content, Layout, Tensor
from bench.synth.make import Recipe, make
from tests.worker.conftest import made_up_case

LAYOUT = Layout(
    {"config.json": {}},
    [Tensor(str(number), "F16", (1 << 10,), Content.NORMAL, deviation=0.1) for number in range(3)],
)


def recipe(sparse: bool = False) -> Recipe:
    return Recipe(made_up_case({}), seed=0, shard_bytes=4096, sparse=sparse)


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(synth.shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 6000, 6000))
    with pytest.raises(BadInput, match=r"GiB are free"):
        make(recipe(), LAYOUT, tmp_path / "a" / "new")
    assert list(tmp_path.iterdir()) == []
    make(recipe(sparse=True), LAYOUT, tmp_path / "a" / "sparse")  # takes none


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 6144
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(recipe(), LAYOUT, tmp_path / "new", interrupt)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "new.partial").glob("*.safetensors")] == [
        "model-00001-of-00002.safetensors"
    ]
    seen: list[int] = []
    make(recipe(), LAYOUT, tmp_path / "new", lambda done, total: seen.append(done))
    assert seen == [6144]  # one tensor was missing
    assert not (tmp_path / "new" / ".lock").exists()
    assert not (tmp_path / "new.partial").exists()


def test_two_do_not_write_the_same(tmp_path: Path) -> None:
    def again(done: int, total: int) -> None:
        with pytest.raises(BadInput, match="another process"):
            make(recipe(), LAYOUT, tmp_path / "new")

    make(recipe(), LAYOUT, tmp_path / "new", again)
    assert (tmp_path / "new").is_dir()
