"""`vram-bench list`: the models and cards that can be named, with what is known of them."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from rich.table import Table

from bench.config import compose as config
from bench.config.lengths import lengths_of
from bench.config.typed import searched
from bench.core.errors import BadInput, ExitCode
from bench.report.text.console import console_for
from bench.report.text.units import size, tokens

_Row = dict[str, Any]
_CLASS = re.compile(r"For(CausalLM|ConditionalGeneration)$")


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench list [models|devices] [--config-dir DIR] [--json]`."""
    return listing(arguments.what, arguments.config_dir, arguments.json)


def listing(what: str | None, config_dir: str | None, as_json: bool) -> int:
    """Prints the models, the simulated cards, or both; returns the exit code. Raises `BadInput`."""
    asked = [what] if what else ["models", "devices"]
    overrides = [searched(config_dir)] if config_dir else []
    rows = {kind: _models(overrides) if kind == "models" else _devices(overrides) for kind in asked}
    if as_json:
        print(json.dumps(rows, indent=2))
        return ExitCode.DONE
    console = console_for()
    for index, kind in enumerate(asked):
        if index:
            console.print()
        console.print(_table(kind, rows[kind]))
    if "models" in asked:
        console.print("others: model=local model.path=DIR, model=hub model.repo=ORG/NAME, model=FILE.yaml", style="dim")
    if "devices" in asked:
        console.print("others: device=cuda, the GPU of this machine; device=FILE.yaml, a card of your own", style="dim")
    return ExitCode.DONE


def _models(overrides: list[str]) -> list[_Row]:
    rows = []
    for plain in _all("model", overrides):
        model = plain["model"]
        lengths = lengths_of(model["config"])
        text = {**model["config"], **(model["config"].get("text_config") or {})}
        rows.append(
            {
                "name": model["name"],
                "architecture": next(iter(model["config"].get("architectures") or []), None),
                "layers": text.get("num_hidden_layers"),
                "hidden_size": text.get("hidden_size"),
                "kv_heads": text.get("num_key_value_heads", text.get("num_attention_heads")),
                "native_max_seq_len": lengths.limit if lengths.is_limit_known else None,
                "repo": model["repo"],
            }
        )
    return rows


def _devices(overrides: list[str]) -> list[_Row]:
    rows = []
    for plain in _all("device", overrides):
        device = config.validate(plain).device
        rows.append(
            {
                "name": device.name,
                "full_name": device.full_name,
                "total_memory_bytes": device.total_memory_bytes,
                "memory_bandwidth_bytes_per_s": device.memory_bandwidth_bytes_per_s,
                "compute_capability": device.compute_capability,
                "context_bytes": device.context_bytes,
                "context_basis": device.context_basis,
            }
        )
    return rows


def _all(group: str, overrides: list[str]) -> list[dict[str, Any]]:
    try:
        return config.combinations([*overrides, f"{group}=all"])
    except BadInput as error:
        raise BadInput(f"list: {error}") from error


def _table(kind: str, rows: list[_Row]) -> Table:
    columns: dict[str, Any] = {
        "models": {
            "model": lambda row: row["name"],
            "architecture": lambda row: row["architecture"] and _CLASS.sub("", row["architecture"]),
            "layers": lambda row: row["layers"],
            "KV heads": lambda row: row["kv_heads"],
            "native length": lambda row: tokens(row["native_max_seq_len"]),
        },
        "devices": {
            "device": lambda row: row["name"],
            "memory": lambda row: size(row["total_memory_bytes"]),
            "bandwidth": lambda row: _rate(row["memory_bandwidth_bytes_per_s"]),
            "capability": lambda row: row["compute_capability"],
            "context": lambda row: f"{size(row['context_bytes'])} {row['context_basis'] or ''}".strip(),
        },
    }[kind]
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if name in ("layers", "KV heads", "native length", "memory") else "left")
        table.columns[index].no_wrap = index == 0
        table.columns[index].overflow = "fold"
    for row in rows:
        table.add_row(*(str(value) if (value := cell(row)) is not None else "?" for cell in columns.values()))
    return table


def _rate(bytes_per_s: float | None) -> str | None:
    return None if bytes_per_s is None else f"{bytes_per_s / 1e9:,.0f} GB/s"
