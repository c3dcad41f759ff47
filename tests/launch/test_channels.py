"""A child that prints without end does not fill the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.launch import channels
from bench.launch.channels import Log


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setattr(channels, "_LOOK_S", 0)
    monkeypatch.setattr(channels, "_MOST_LOG_BYTES", 1 << 20)
    return Log(tmp_path / "case.log")


def test_a_log_within_its_bound_is_kept_whole(log: Log, tmp_path: Path) -> None:
    said = b"x" * (1 << 20)
    os.write(log.fileno(), said)
    log.keep_short()
    log.close()
    assert (tmp_path / "case.log").read_bytes() == said


def test_a_longer_one_is_cut_and_says_so_and_what_follows_is_kept(log: Log, tmp_path: Path) -> None:
    os.write(log.fileno(), b"x" * ((1 << 20) + 1))
    log.keep_short()
    os.write(log.fileno(), b"and then it died\n")
    log.keep_short()
    log.close()
    text = (tmp_path / "case.log").read_text()
    assert text == "(the log was longer than 1 MiB up to here: that is left out)\nand then it died\n"
