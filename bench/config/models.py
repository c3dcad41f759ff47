"""Models as the engine will see them: from the catalogue, from a directory on disk, or from a hub."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from bench.config import formats
from bench.config.dimensions import absurdity
from bench.config.model_names import name_of
from bench.config.settings import ModelSettings
from bench.core.case import DEFAULT_ENGINE, UNQUANTISED_BPW, ModelSpec
from bench.core.errors import BadInput
from bench.engines.registry import engine_of
from bench.tensor_files import BrokenHeader, Entry, read_header

# What conf calls a model that has a name of its own, where it lies.
_UNNAMED = ("local", "hub")


def resolve_model(settings: ModelSettings, bpw: float = UNQUANTISED_BPW, engine: str = DEFAULT_ENGINE) -> ModelSpec:
    """The model that `settings` name; `bpw` is what is asked for, and what `{bpw}` in a revision stands for.

    Raises `BadInput` for a directory or a repository that is no model, or has weights that `engine` does not load.
    """
    if settings.path is not None:
        model = _read_directory(Path(settings.path).expanduser(), f"model.path={settings.path}", engine)
    elif settings.name == "local":
        raise BadInput("model=local needs model.path=DIR, a directory with a config.json")
    elif settings.config:
        return _from_catalogue(settings.name, json.dumps(settings.config, sort_keys=True))
    elif settings.repo:
        model = _from_hub(settings.repo, (settings.revision or "main").replace("{bpw}", str(bpw)), engine)
        # Unquantised weights are what a quantised model is made of: its bits can be chosen, as in the catalogue.
        if model.bpw == UNQUANTISED_BPW != bpw:
            model = replace(model, bpw=None)
    else:
        raise BadInput("model=hub needs model.repo=ORG/NAME, and model.revision=REV where it is not main")
    return model if settings.name in _UNNAMED else replace(model, name=settings.name)


@cache
def _from_catalogue(name: str, config_text: str) -> ModelSpec:
    config = json.loads(config_text)
    if reason := _unnamed(config) or absurdity(config):
        raise BadInput(f"model={name}: model.config: {reason}")
    return ModelSpec(name, config, _fingerprint(config_text))


@cache
def _from_hub(repo: str, revision: str, engine: str) -> ModelSpec:
    from bench.config import hub

    resolved = hub.resolve(repo, revision)
    model = _read_directory(resolved.directory, f"model.repo={repo}", engine)
    mark = revision[:8] if revision == resolved.commit else revision.replace("/", "-")
    return replace(
        model,
        name=repo.rpartition("/")[2] + ("" if revision == "main" else f"@{mark}"),
        repo=repo,
        revision=resolved.commit,
    )


@cache
def _read_directory(path: Path, source: str, engine: str) -> ModelSpec:
    """The model in `path`, to be loaded by `engine`; errors call it `source`."""
    config_path = path / "config.json"
    if not path.is_dir():
        raise BadInput(f"{source}: no such directory")
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{source}: no config.json in it; give a model's own directory") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{config_path}: not a readable JSON document ({error})") from None
    if not isinstance(config, dict):
        raise BadInput(f"{config_path}: not a JSON object")
    entries: dict[str, Entry] = {}
    for file in sorted(path.glob("*.safetensors")):
        entries.update(_read_header(file))
    tensors = {name: (list(entry.shape), entry.dtype) for name, entry in entries.items()}
    foreign = [file.name for file in sorted(path.iterdir()) if formats.is_weights_file(file.name)]
    if reason := formats.refusal(tensors, config, foreign, engine_of(engine)):
        raise BadInput(f"{source}: {reason}")
    if reason := _unnamed(config) or absurdity(config):
        raise BadInput(f"{source}: config.json: {reason}")
    text = json.dumps([config, tensors], sort_keys=True)
    return ModelSpec(
        name_of(path.resolve()), config, _fingerprint(text), str(path.resolve()), _bits_per_weight(entries)
    )


def _unnamed(config: Mapping[str, Any]) -> str | None:
    """Why nobody can tell which architecture a config.json is of; None where it says so."""
    named = config.get("architectures")
    if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str):
        return None
    said = "there is no `architectures`" if named is None else f"`architectures` is {json.dumps(named)}"
    return f'{said}; write the one that the original model has there, as ["LlamaForCausalLM"]'


def _bits_per_weight(entries: dict[str, Entry]) -> float | None:
    """The bpw that the engine's converter would print: all bits of the quantised layers, the head left out."""
    bits = weights = 0
    for name, entry in entries.items():
        layer, _, part = name.rpartition(".")
        if part != "q_weight" or _is_head(layer):
            continue
        parts = [entries.get(f"{layer}.{part}") for part in formats.EXL2_PARTS]
        bits += sum(8 * part.size_bytes for part in parts if part is not None)
        order = entries.get(f"{layer}.q_invperm")
        weights += math.prod(order.shape) * entry.shape[1] if order is not None else 0
    if weights:
        return round(bits / weights, 2)
    return UNQUANTISED_BPW if entries else None


def _is_head(layer: str) -> bool:
    """Whether a layer is the output layer: engines call it lm_head, below the prefix of the language model.

    InternLM2's own name for it is mapped to that (architecture.py of the engine, internlm2_keymap).
    """
    return layer.rpartition(".")[2] == "lm_head" or layer == "output"


def _read_header(path: Path) -> dict[str, Entry]:
    try:
        return read_header(path)
    except (BrokenHeader, OSError) as error:
        raise BadInput(f"{path}: broken safetensors header ({error}); download the file again") from None


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
