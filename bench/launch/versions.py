"""The versions that a measurement depends on."""

from __future__ import annotations

from importlib.metadata import version


def installed_versions() -> dict[str, str | None]:
    """The versions that a measurement depends on, without importing any of them."""
    return {
        "harness_version": version("vram-bench"),
        "torch_version": version("torch"),
        "exllamav2_version": version("exllamav2"),
    }
