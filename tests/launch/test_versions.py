"""What a measurement depends on, as it is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from bench.launch import versions
from tests.conftest import Program


def test_what_is_not_installed_has_no_version_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, in_process: Program
) -> None:
    installed = versions.version

    def without_the_engine(name: str) -> str:
        if name == "exllamav2":
            raise PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(versions, "version", without_the_engine)
    assert versions.installed_versions()["exllamav2_version"] is None
    assert versions.installed_versions()["torch_version"] == installed("torch")
    done = in_process("doctor")
    assert "not installed" in done.stdout
