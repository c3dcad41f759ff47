"""A disk that is full or may not be written to: told in two lines, or done without."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.conftest import Program

TINY = ("model=tinyllama_1_1b", "device=rtx_3060_12gb", "model.config.num_hidden_layers=2")


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("command", ["sweep", "plan"])
def test_a_full_folder_for_temporary_files_is_told_before_anything_runs(
    in_process: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("bench.core.scratch.Path.write_bytes", _full)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = in_process(command, *TINY, "max_seq_len=256")
    assert done.returncode == 2
    assert f"TMPDIR={tmp_path}: no temporary files can be written there (No space left on device)" in done.stderr
    assert not list(tmp_path.rglob("*.parquet"))
    assert not list(tmp_path.rglob("vram-bench-run-*"))


def test_a_cache_that_is_no_folder_costs_no_answer(in_process: Program, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    planned = in_process("plan", *TINY, "max_seq_len=256", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert planned.returncode == 0, planned.stderr
    assert "cannot" not in planned.stdout
    swept = in_process("sweep", *TINY, "max_seq_len=256", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert swept.returncode == 0, swept.stderr
