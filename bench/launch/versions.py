"""The versions that a measurement depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import bench
from bench.engines.registry import engines

# Sources that decide what a case is predicted to allocate.
_RULES = (
    *("core/case.py", "scenarios/*.py", "allocator/*.py", "trace/*.py", "engines/**/*.py", "worker/**/*.py"),
    *("forecast/predict.py", "forecast/search.py"),
)
# Those that decide what is recorded, whatever is made of it later; of engines, those of the one that is recorded.
_RECORDING = (
    *("core/case.py", "core/split.py", "scenarios/*.py", "engines/*.py", "worker/*.py", "worker/simulated/*.py"),
    *("trace/recording.py", "trace/solve.py", "trace/parametric.py", "trace/passes.py", "trace/template.py"),
    *("trace/divided.py", "trace/handed_on.py", "trace/split.py"),
    *("engines/{engine}/*.py", "worker/engines/*.py", "worker/engines/{engine}/**/*.py", "worker/interfaces/*.py"),
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
    return _digest(json.dumps(installed_versions(), sort_keys=True), _RULES)


def recording_digest(engine: str) -> str:
    """Changes with the sources of this program that decide what is recorded of an engine."""
    return _digest(engine, [pattern.format(engine=engine) for pattern in _RECORDING])


def _digest(text: str, patterns: Iterable[str]) -> str:
    digest = hashlib.sha256(text.encode())
    package = Path(bench.__file__).parent
    for path in sorted(path for pattern in patterns for path in package.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
