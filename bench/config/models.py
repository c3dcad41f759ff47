"""Models as the engine will see them: from the catalogue, from a directory on disk, or from a hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.config import formats
from bench.config.bits import bits_per_weight
from bench.config.dimensions import absurdity
from bench.config.foreign_json import BadJson, read_object
from bench.config.group_tables import broken_table
from bench.config.model_names import name_of
from bench.config.settings import ModelSettings
from bench.core.case import DEFAULT_ENGINE, UNQUANTISED_BPW, ModelSpec
from bench.core.errors import BadInput
from bench.engines.registry import engine_of, engines
from bench.tensor_files import MOST_FILES, BrokenHeader, Entry, read_header

if TYPE_CHECKING:
    from bench.config import hub

# What conf calls a model that has a name of its own, where it lies.
_UNNAMED = ("local", "hub")


def engine_of_weights(settings: ModelSettings, bpw: float = UNQUANTISED_BPW) -> str:
    """The engine whose own format the weights are in; the default one for all others, and where there are none.

    Raises `BadInput` for a directory or a repository that is no model.
    """
    if settings.path is not None:
        content = _content(_absolute(settings.path), f"model.path={settings.path}")
    elif settings.repo and not settings.config:
        content = _content(_resolve(settings.repo, _revision(settings, bpw)).directory, f"model.repo={settings.repo}")
    else:
        return DEFAULT_ENGINE
    found = formats.format_of(content.tensors, content.config)
    return next((engine.name for engine in engines() if engine.weights.quantised == found), DEFAULT_ENGINE)


def resolve_model(settings: ModelSettings, bpw: float = UNQUANTISED_BPW, engine: str | None = None) -> ModelSpec:
    """The model that `settings` name; `bpw` is what is asked for, and what `{bpw}` in a revision stands for.

    Without an `engine` it is that of the weights. Raises `BadInput` for a directory or a repository that is no model,
    or has weights that `engine` does not load.
    """
    engine = engine or engine_of_weights(settings, bpw)
    if settings.path is not None:
        model = _read_directory(_absolute(settings.path), f"model.path={settings.path}", engine)
    elif settings.name == "local":
        raise BadInput("model=local needs model.path=DIR, a directory with a config.json")
    elif settings.config:
        return _from_catalogue(settings.name, json.dumps(settings.config, sort_keys=True))
    elif settings.repo:
        model = _from_hub(settings.repo, _revision(settings, bpw), engine)
        # Unquantised weights are what a quantised model is made of: its bits can be chosen, as in the catalogue.
        if model.bpw == UNQUANTISED_BPW != bpw:
            model = replace(model, bpw=None)
    else:
        raise BadInput("model=hub needs model.repo=ORG/NAME, and model.revision=REV where it is not main")
    return model if settings.name in _UNNAMED else replace(model, name=settings.name)


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _revision(settings: ModelSettings, bpw: float) -> str:
    return (settings.revision or "main").replace("{bpw}", str(bpw))


@cache
def _from_catalogue(name: str, config_text: str) -> ModelSpec:
    config = json.loads(config_text)
    if reason := _unnamed(config) or absurdity(config):
        raise BadInput(f"model={name}: model.config: {reason}")
    return ModelSpec(name, config, _fingerprint(config_text))


@cache
def _resolve(repo: str, revision: str) -> hub.Resolved:
    from bench.config import hub

    return hub.resolve(repo, revision)


@cache
def _from_hub(repo: str, revision: str, engine: str) -> ModelSpec:
    resolved = _resolve(repo, revision)
    model = _read_directory(resolved.directory, f"model.repo={repo}", engine)
    mark = revision[:8] if revision == resolved.commit else revision.replace("/", "-")
    return replace(
        model,
        name=repo.rpartition("/")[2] + ("" if revision == "main" else f"@{mark}"),
        repo=repo,
        revision=resolved.commit,
    )


class _Content(NamedTuple):
    """What a directory has of a model: its config.json, parsed, and the headers of its weights."""

    config: dict[str, Any]
    entries: dict[str, Entry]

    @property
    def tensors(self) -> formats.Tensors:
        """The shape and the safetensors type of each."""
        return {name: (list(entry.shape), entry.dtype) for name, entry in self.entries.items()}


@cache
def _content(path: Path, source: str) -> _Content:
    """Reads the directory `path`; errors call it `source`."""
    config_path = path / "config.json"
    if not path.is_dir():
        raise BadInput(f"{source}: no such directory")
    try:
        config = read_object(config_path)
    except FileNotFoundError:
        raise BadInput(f"{source}: no config.json in it; give a model's own directory") from None
    except BadJson as error:
        raise BadInput(f"{config_path}: {error}") from None
    except OSError as error:
        raise BadInput(f"{config_path}: cannot be read ({error.strerror or error})") from None
    weights = sorted(path.glob("*.safetensors"))
    if len(weights) > MOST_FILES:
        raise BadInput(f"{source}: {len(weights):,} files of weights; at most {MOST_FILES:,} are read")
    files = {file: _read_header(file) for file in weights}
    if reason := _broken_table(files):
        raise BadInput(f"{source}: {reason}; download it again")
    return _Content(config, {name: entry for entries in files.values() for name, entry in entries.items()})


@cache
def _read_directory(path: Path, source: str, engine: str) -> ModelSpec:
    """The model in `path`, to be loaded by `engine`; errors call it `source`."""
    content = _content(path, source)
    try:
        str(path.resolve()).encode()
    except UnicodeEncodeError:
        raise BadInput(f"{source}: its path is no UTF-8, and a row is; rename the folder") from None
    config, tensors = content.config, content.tensors
    foreign = [file.name for file in sorted(path.iterdir()) if formats.is_weights_file(file.name)]
    if reason := formats.refusal(tensors, config, foreign, engine_of(engine)):
        raise BadInput(f"{source}: {reason}")
    if reason := _unnamed(config) or absurdity(config):
        raise BadInput(f"{source}: config.json: {reason}")
    text = json.dumps([config, tensors], sort_keys=True)
    bpw = bits_per_weight(content.entries)
    return ModelSpec(name_of(path.resolve()), config, _fingerprint(text), str(path.resolve()), bpw)


def forget() -> None:
    """Directories and hubs are read again when they are asked for the next time."""
    for read in (_resolve, _from_hub, _content, _read_directory):
        read.cache_clear()


def _unnamed(config: Mapping[str, Any]) -> str | None:
    """Why nobody can tell which architecture a config.json is of; None where it says so."""
    named = config.get("architectures")
    if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str):
        return None
    said = "there is no `architectures`" if named is None else f"`architectures` is {json.dumps(named)}"
    return f'{said}; write the one that the original model has there, as ["LlamaForCausalLM"]'


def _read_header(path: Path) -> dict[str, Entry]:
    try:
        return read_header(path)
    except (BrokenHeader, OSError) as error:
        raise BadInput(f"{path}: broken safetensors header ({error}); download the file again") from None


def _broken_table(files: Mapping[Path, Mapping[str, Entry]]) -> str | None:
    try:
        return broken_table(files)
    except OSError as error:
        return f"not readable ({error})"


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
