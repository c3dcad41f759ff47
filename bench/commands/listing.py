"""`vram-bench list`: the models and cards that can be named, with what is known of them."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.table import Table

from bench.config import compose as config
from bench.config.lengths import lengths_of
from bench.config.settings import ModelSettings
from bench.config.typed import searched
from bench.core.case import DEFAULT_ENGINE
from bench.core.errors import BadInput, ExitCode
from bench.engines.registry import NAMES, engine_of, engines, titles
from bench.report.text.console import console_for
from bench.report.text.units import size, tokens

_CLASS = re.compile(r"For(CausalLM|ConditionalGeneration)$")
_Row = TypeVar("_Row")
_ENGINE = engine_of(DEFAULT_ENGINE)
# The other engines, and the marks of models that they alone support.
_OTHERS = [(str(number), name) for number, name in enumerate((each for each in NAMES if each != DEFAULT_ENGINE), 1)]


@dataclass(frozen=True)
class _Model:
    """A model as `--json` has it; None for what its config.json does not tell."""

    name: str
    architecture: str | None
    layers: int | None
    hidden_size: int | None
    kv_heads: int | None
    native_max_seq_len: int | None
    repo: str | None
    supported: bool | None  # whether the engine that runs by default has code for its architecture
    engines: list[str]  # those that have


@dataclass(frozen=True)
class _Device:
    """A card as `--json` has it."""

    name: str
    full_name: str | None
    total_memory_bytes: int | None
    memory_bandwidth_bytes_per_s: float | None
    compute_capability: str | None
    context_bytes: int | None
    context_basis: str | None


_ASSUMED = "assumed"


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench list [models|devices] [--config-dir DIR] [--json]`."""
    return listing(arguments.what, arguments.config_dir, arguments.json)


def listing(what: str | None, config_dir: str | None, as_json: bool) -> int:
    """Prints the models, the simulated cards, or both; returns the exit code. Raises `BadInput`."""
    asked = [what] if what else ["models", "devices"]
    overrides = [searched(config_dir)] if config_dir else []
    models = _models(overrides) if "models" in asked else []
    devices = _devices(overrides) if "devices" in asked else []
    if as_json:
        found = {"models": [vars(model) for model in models], "devices": [vars(device) for device in devices]}
        print(json.dumps({kind: found[kind] for kind in asked}, indent=2))
        return ExitCode.DONE
    console = console_for()
    for index, kind in enumerate(asked):
        if index:
            console.print()
        console.print(_table(_MODEL_COLUMNS, models) if kind == "models" else _table(_DEVICE_COLUMNS, devices))
    if any(not model.engines for model in models):
        console.print(f"*: no engine here ({titles()}) supports this architecture, or it is not known")
    for number, name in _OTHERS:
        if any(_mark(model).endswith(f" {number}") for model in models):
            console.print(f"{number}: not with {_ENGINE.title}, but with engine={name}")
    if "models" in asked:
        console.print("others: model=local model.path=DIR, model=hub model.repo=ORG/NAME, model=FILE.yaml", style="dim")
    if "devices" in asked:
        if any(device.context_basis == _ASSUMED for device in devices):
            console.print("context: what CUDA itself takes of the card; ≈ where it is assumed, and not measured")
        console.print(
            "others: device=cuda, the GPU of this machine; device=FILE.yaml, a card of your own; device=2xNAME, "
            "device=NAME+NAME, several that hold one model",
            style="dim",
        )
    return ExitCode.DONE


def _models(overrides: list[str]) -> list[_Model]:
    return [_model(config.validate(plain).model) for plain in _all("model", overrides)]


def _model(model: ModelSettings) -> _Model:
    text = {**model.config, **(model.config.get("text_config") or {})}
    lengths = lengths_of(model.config)
    architecture = next(iter(model.config.get("architectures") or []), None)
    return _Model(
        name=model.name,
        architecture=architecture,
        layers=text.get("num_hidden_layers"),
        hidden_size=text.get("hidden_size"),
        kv_heads=text.get("num_key_value_heads", text.get("num_attention_heads")),
        native_max_seq_len=lengths.limit if lengths.is_limit_known else None,
        repo=model.repo,
        supported=architecture and architecture in _ENGINE.architectures,
        engines=[engine.name for engine in engines() if architecture in engine.architectures],
    )


def _devices(overrides: list[str]) -> list[_Device]:
    devices = [config.validate(plain).device for plain in _all("device", overrides)]
    return [_Device(**{name: getattr(device, name) for name in _Device.__dataclass_fields__}) for device in devices]


def _all(group: str, overrides: list[str]) -> list[dict[str, Any]]:
    try:
        return config.combinations([*overrides, f"{group}={','.join(config.listed(group, overrides))}"])
    except BadInput as error:
        raise BadInput(f"list: {error}") from error


def _mark(model: _Model) -> str:
    name = _CLASS.sub("", model.architecture or "?")
    other = next((number for number, engine in _OTHERS if engine in model.engines), "*")
    return name if model.supported else f"{name} {other}"


_MODEL_COLUMNS: dict[str, Callable[[_Model], object]] = {
    "model": lambda model: model.name,
    "architecture": lambda model: _mark(model),
    "layers": lambda model: model.layers,
    "KV heads": lambda model: model.kv_heads,
    "native length": lambda model: tokens(model.native_max_seq_len),
}
_DEVICE_COLUMNS: dict[str, Callable[[_Device], object]] = {
    "device": lambda device: device.name,
    "memory": lambda device: size(device.total_memory_bytes),
    "bandwidth": lambda device: _rate(device.memory_bandwidth_bytes_per_s),
    "capability": lambda device: device.compute_capability,
    "context": lambda device: _context(device),
}


_OF_WORDS = ("model", "architecture", "device")


def _table(columns: Mapping[str, Callable[[_Row], object]], rows: Iterable[_Row]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if name in _OF_WORDS else "right")
        table.columns[index].no_wrap = index == 0
        table.columns[index].overflow = "fold"
    for row in rows:
        table.add_row(*(str(value) if (value := cell(row)) is not None else "?" for cell in columns.values()))
    return table


def _context(device: _Device) -> str:
    return ("≈" if device.context_basis == _ASSUMED else "") + size(device.context_bytes)


def _rate(bytes_per_s: float | None) -> str | None:
    return None if bytes_per_s is None else f"{bytes_per_s / 1e9:,.0f} GB/s"
