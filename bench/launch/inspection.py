"""Whether checkpoints have all tensors that their config.json requires: a worker looks, and the answer is cached."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, cast

from platformdirs import user_cache_path

from bench.core.case import Case, ModelSpec
from bench.core.device import SIMULATED, DeviceSpec
from bench.core.errors import BadInput
from bench.core.files import replaced
from bench.core.messages import Failure, last
from bench.core.requests import InspectCheckpoint
from bench.core.scratch import scratch_folder
from bench.engines.registry import engine_of
from bench.launch.launcher import Launcher
from bench.launch.launchers import Launchers
from bench.launch.supervise import run_isolated
from bench.launch.versions import engine_digest

_TIMEOUT_S = 300.0
# Where a checkpoint's headers are read: it needs no size.
_CARD = DeviceSpec("inspection", SIMULATED, "", 1 << 30)


class _Misshapen(TypedDict):
    """See `bench.worker.shapes.Misshapen`."""

    tensor: str
    found: list[int]
    expected: list[int] | None


class _Inspected(TypedDict):
    """What the worker has written down; `refused` says why the engine takes none of it."""

    missing: list[str]
    misshapen: list[_Misshapen]
    refused: str | None


def require_whole(cases: Iterable[Case], to_be_read: bool = False) -> None:
    """Raises `BadInput` for a model whose checkpoint lacks tensors, or has them of shapes that its config.json does not
    make: from a directory, or by the headers of a hub.

    A model that the engine refuses for another reason is let through, because its cases will say so; `to_be_read` ones
    have no cases, and are refused with that reason.
    """
    asked = {(case.model.fingerprint, case.engine): case for case in cases}  # thousands of cases are of few models
    models = [case for case in asked.values() if _has_tensors(case.model)]
    folder = user_cache_path("vram-bench") / "whole" / engine_digest() if models else Path()
    launchers = Launchers()
    try:
        for case in models:
            path = folder / f"{case.engine}-{_key(case.model)}.json"
            found = _kept(path)
            if found is None:
                found = _ask_worker(launchers.simulated(case.engine), case, path)
            if found["misshapen"]:
                raise BadInput(_misshapen(case, found["misshapen"]))
            if found["missing"]:
                raise BadInput(_lacking(case.model, found["missing"]))
            if to_be_read and found["refused"]:
                raise BadInput(f"{_source(case.model)}: {found['refused']}")
    finally:
        launchers.close()


def _has_tensors(model: ModelSpec) -> bool:
    return model.path is not None and any(Path(model.path).glob("*.safetensors"))


def _key(model: ModelSpec) -> str:
    """Changes with all that is looked at: config.json, the headers, and what is said of images."""
    assert model.path is not None
    about_images = Path(model.path) / "preprocessor_config.json"
    digest = hashlib.sha256(about_images.read_bytes() if about_images.is_file() else b"")
    return f"{model.fingerprint}-{digest.hexdigest()[:8]}"


def _kept(path: Path) -> _Inspected | None:
    """What was found before; None where nothing, or no such thing, is kept."""
    try:
        found = json.loads(path.read_bytes())
        _misshapen_texts(found)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return cast(_Inspected, found)


def _misshapen_texts(found: _Inspected) -> None:
    """Raises where `found` lacks what is read of it."""
    [*found["missing"], found["refused"]]
    for tensor in found["misshapen"]:
        (tensor["tensor"], tensor["found"], tensor["expected"])


def _ask_worker(launcher: Launcher, case: Case, path: Path) -> _Inspected:
    """What a worker finds; kept at `path` where that can be written to."""
    with scratch_folder() as folder:
        answer = folder / "answer.json"
        request = InspectCheckpoint(replace(case, device=_CARD), answer)
        ending = run_isolated(launcher, request, folder / "log", _TIMEOUT_S)
        if not answer.exists():
            failure = last(ending.messages, Failure)
            said = failure.message if failure else ending.log_tail.strip()
            raise RuntimeError(f"the worker that reads the headers died: {said or 'no word'}")
        text = answer.read_text()
    with contextlib.suppress(OSError):  # without a cache, it looks again the next time
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as partial:
            partial.write_text(text)
    found: _Inspected = json.loads(text)
    return found


def _misshapen(case: Case, tensors: list[_Misshapen]) -> str:
    first = tensors[0]
    expected = "no such tensor" if first["expected"] is None else f"{first['expected']}"
    more = f" ({len(tensors) - 1} more differ)" if len(tensors) > 1 else ""
    engine = engine_of(case.engine).title
    return (
        f"{_source(case.model)}: {first['tensor']} has the shape {first['found']}, and {engine} takes {expected} for "
        f"its config.json{more}; give weights and config.json of one model"
    )


def _lacking(model: ModelSpec, missing: list[str]) -> str:
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    verb = "are" if more else "is"
    again = "choose another repository or revision" if model.repo else "download it again"
    return f"{_source(model)}: {missing[0]}{more} {verb} in none of its files; {again}"


def _source(model: ModelSpec) -> str:
    return f"model.repo={model.repo}" if model.repo else f"model.path={model.path}"
