"""What is not in the core of this program but in one of its extras (`pyproject.toml`), and what to type to have it."""

from __future__ import annotations

from collections.abc import Iterable

from bench.core.case import DEFAULT_ENGINE
from bench.core.errors import BadInput

# Libraries that only some commands need: all are in the extra `report`, and an engine's extra has that, too.
_OF_REPORTS = ("pandas", "pyarrow", "matplotlib", "plotly", "itables", "jinja2", "markupsafe", "scipy")
_RUN_AN_ENGINE = ("sweep", "synth", "validate")  # commands


_NOT_SHIPPED = "no recording of it comes with vram-bench"


class MissingExtra(BadInput):
    """Something is not installed that is in an extra; the text says what, and what to type."""


def missing(error: ModuleNotFoundError, command: str) -> MissingExtra | None:
    """What to say where a command's library is not there; None of one that is in no extra."""
    module = (error.name or "").partition(".")[0]
    if module not in _OF_REPORTS:
        return None
    extra = DEFAULT_ENGINE if command in _RUN_AN_ENGINE else "report"
    return MissingExtra(f"{command} needs {module}, which is not installed: {install(extra)}")


def without_engine(engine: str) -> MissingExtra:
    """Of what an engine is to be run for that is not installed."""
    return MissingExtra(f"to run {engine} it must be installed: {install(engine)}")


def not_shipped(engine: str) -> str:
    """Of what was not recorded beforehand, where the engine that would be recorded is not installed."""
    return f"{_NOT_SHIPPED}, and to make one {engine} must be installed: {install(engine)}"


def require_some(reasons: Iterable[str | None]) -> None:
    """Raises `MissingExtra` where all that was asked for has a reason, and it is that of `not_shipped`."""
    told = set(reasons)
    if told and all(reason is not None and reason.startswith(_NOT_SHIPPED) for reason in told):
        raise MissingExtra("; ".join(sorted(map(str, told))))


_LAUNCHERS = {"slurm": "slurm", "submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray", "joblib": "joblib"}


def launcher_package(launcher: str) -> str:
    """What to type for one of Hydra's launchers; in words where it is in no extra."""
    extra = _LAUNCHERS.get(launcher)
    others = f"known are {', '.join(_LAUNCHERS)}; others are packages of Hydra's plugins"
    return install(extra) if extra else others


def install(extra: str) -> str:
    """What to type for an extra."""
    return f'pip install "vram-bench[{extra}]"'
