"""The versions that a measurement depends on."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import bench
from bench.engines.registry import engines

# Sources that decide what a case is predicted to allocate.
_RULES = (
    *("core/case.py", "scenarios/*.py", "allocator/*.py", "trace/*.py", "engines/**/*.py", "worker/**/*.py"),
    *("forecast/predict.py", "forecast/search.py"),
)


def installed_versions() -> dict[str, str | None]:
    """The versions that a measurement depends on, without importing any of them; None for what is not installed."""
    return {
        "harness_version": installed_version("vram-bench"),
        "torch_version": installed_version("torch"),
        **{engine.version_column: installed_version(engine.name) for engine in engines()},
    }


def installed_version(distribution: str) -> str | None:
    """The version of a package as pip names it; None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def engine_digest() -> str:
    """Changes with anything that decides what a case allocates: the engine, PyTorch, and this program's own rules."""
    digest = hashlib.sha256(json.dumps(installed_versions(), sort_keys=True).encode())
    package = Path(bench.__file__).parent
    for path in sorted(path for pattern in _RULES for path in package.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
