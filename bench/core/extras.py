"""What is not in the core of this program but in one of its extras (`pyproject.toml`), and what to type to have it."""

from __future__ import annotations

from bench.core.case import DEFAULT_ENGINE
from bench.core.errors import BadInput

# Libraries that only some commands need: all are in the extra `report`, and an engine's extra has that, too.
_OF_REPORTS = ("pandas", "pyarrow", "matplotlib", "plotly", "itables", "jinja2", "markupsafe", "scipy")
_RUN_AN_ENGINE = ("sweep", "synth", "validate")  # commands


class MissingExtra(BadInput):
    """Something is not installed that is in an extra; the text says what, and what to type."""


def missing(error: ModuleNotFoundError, command: str) -> MissingExtra | None:
    """What to say where a command's library is not there; None of one that is in no extra."""
    module = (error.name or "").partition(".")[0]
    if module not in _OF_REPORTS:
        return None
    extra = DEFAULT_ENGINE if command in _RUN_AN_ENGINE else "report"
    return MissingExtra(f"{command} needs {module}, which is not installed: {_install(extra)}")


def without_engine(engine: str) -> MissingExtra:
    """Of what an engine is to be run for that is not installed."""
    return MissingExtra(f"to run {engine} it must be installed: {_install(engine)}")


def not_shipped(engine: str) -> str:
    """Of what was not recorded beforehand, where the engine that would be recorded is not installed."""
    return f"no recording of it comes with vram-bench, and to make one {engine} must be installed: {_install(engine)}"


def _install(extra: str) -> str:
    return f'pip install "vram-bench[{extra}]"'
