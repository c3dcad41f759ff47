"""A folder of reports: what the program wrote there before and has no more goes, what others put there stays."""

from __future__ import annotations

import json
import os
from pathlib import Path

from bench.report.publish import publish
from bench.report.written import keep_only
from tests.analysis.rows_as_read import boundaries_of, boundary, cases_of, fits


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_old_pictures_and_tables_go_and_a_strangers_stay(tmp_path: Path) -> None:
    two = [fits(4096, device_name=name) for name in ("old", "new")]
    publish(cases_of(*two), boundaries_of(boundary(8192, device_name="old")), tmp_path, echo=False)
    assert {"old-boundary.png", "old-peaks.svg", "boundaries.csv", "new-peaks.png"} <= _names(tmp_path)
    strangers = {"notes.md", "old-boundary.jpg", "mine-boundary.png"}
    for name in strangers:
        (tmp_path / name).write_text("mine")
    (tmp_path / "old-peaks.png").write_text("drawn over by somebody else")
    publish(cases_of(two[1]), boundaries_of(), tmp_path, echo=False)
    left = _names(tmp_path)
    assert strangers | {"new-peaks.png", "report.html", "old-peaks.png"} <= left
    assert left & {"old-boundary.png", "old-boundary.svg", "old-peaks.svg", "boundaries.csv"} == set()


def test_nothing_is_removed_where_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "rtx_4090-boundary.png").write_text("of an older version, or of somebody else")
    assert keep_only(tmp_path, []) == []
    for damaged in ("", "[]", "{", '{"a": 1}', "null"):
        (tmp_path / ".vram-bench-report.json").write_text(damaged)
        assert keep_only(tmp_path, []) == []
    assert _names(tmp_path) == {"rtx_4090-boundary.png"}


def test_nothing_outside_the_folder_is_removed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "report", tmp_path / "outside.png"
    folder.mkdir()
    outside.write_text("mine")
    state = outside.stat()
    mark = [state.st_size, state.st_mtime_ns]
    os.symlink(outside, folder / "link.png")
    names = ["../outside.png", str(outside), "link.png", "", ".", ".."]
    (folder / ".vram-bench-report.json").write_text(json.dumps(dict.fromkeys(names, mark)))
    assert keep_only(folder, []) == []
    assert outside.exists()
