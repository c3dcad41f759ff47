"""What is written appears whole or not at all, whoever else writes it at the same time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.core.files import made_directory, replaced


def test_a_file_is_there_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("old")
    with replaced(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exclusive", [False, True])
def test_what_failed_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, exclusive: bool) -> None:
    path = tmp_path / "rows.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), replaced(path, exclusive=exclusive) as partial:
        partial.write_text("half \ud800", "utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_wrote_nothing_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replaced(path):
        pass
    assert path.read_text() == "old"


def test_the_bytes_are_synced_before_they_get_their_name_and_that_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.json"
    synced: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append((Path(os.readlink(f"/proc/self/fd/{fd}")).name, path.exists()))
    )
    with replaced(path, sync=True) as partial:
        partial.write_text("all of it")
    assert synced == [(partial.name, False), (tmp_path.name, True)]


def test_what_a_killed_process_left_is_written_over_where_there_is_but_one(tmp_path: Path) -> None:
    (tmp_path / "shard.partial").write_text("half, and longer than the whole")
    with replaced(tmp_path / "shard", exclusive=True) as partial:
        partial.write_text("whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("shard", "whole")]


def _complete(directory: Path) -> bool:
    return (directory / "config.json").exists()


def test_a_directory_is_there_once_it_is_whole(tmp_path: Path) -> None:
    directory = tmp_path / "below" / "model"
    with made_directory(directory, _complete) as made:
        (made / "config.json").write_text("{}")
        assert not directory.exists()
    assert [path.name for path in directory.parent.iterdir()] == ["model"]
    assert _complete(directory)


def test_a_directory_that_failed_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError), made_directory(tmp_path / "model", _complete) as made:
        (made / "config.json").write_text("half \ud800", "utf-8")
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_make_a_directory_the_first_stays(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    with made_directory(directory, _complete) as made:
        (made / "config.json").write_text("second")
        directory.mkdir()
        (directory / "config.json").write_text("first")
    assert (directory / "config.json").read_text() == "first"


def test_something_else_in_the_place_of_a_directory_is_an_error(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "other").write_text("not ours")
    with pytest.raises(OSError, match="model"), made_directory(directory, _complete) as made:
        (made / "config.json").write_text("{}")
    assert [path.name for path in directory.iterdir()] == ["other"]
