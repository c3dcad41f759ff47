"""What is wrong with a checkpoint, by its headers: tensors that exllamav3 would look for lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.tensor_files import read_header
from bench.worker.engines.exllamav3.modules import tensors_of
from bench.worker.engines.exllamav3.readable import open_model
from bench.worker.interfaces.engine import Faults, Unsupported

_QUANTISED = ("trellis", "suh", "su")


def faults(directory: Path, config: dict[str, Any]) -> Faults:
    """What is wrong with the checkpoint in `directory`, whose config.json is `config`, parsed. Raises `Unsupported`.

    Shapes are not looked at.
    """
    model = open_model(directory, config)
    names = set()
    for file in sorted(directory.glob("*.safetensors")):
        names |= set(read_header(file))
    missing = []
    try:
        expected = list(tensors_of(model, {}, frozenset()))
    except Unsupported:  # nothing is known of this kind of model's tensors
        return Faults([], [])
    for tensor in expected:
        layer, _, part = tensor.name.rpartition(".")
        if tensor.name in names or any(f"{layer}.{quantised}" in names for quantised in _QUANTISED):
            continue
        missing.append(f"{layer}.*" if part == "weight" else tensor.name)
    return Faults(missing, [])
