"""What is wrong with a checkpoint, by its headers, never by an index.

Tensors that ExLlamaV2 would look for lack, or are of shapes for another model than config.json describes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any
from unittest import mock

from bench.worker.engines.exllamav2.readable import read_config, refusals_explained
from bench.worker.engines.exllamav2.shapes import misshapen
from bench.worker.interfaces.engine import Faults, Misshapen, Shape

_NOT_FOUND = re.compile(r"Could not find (.*)\.\* in model")
_MOST = 64  # that the engine's own check is asked for, one after the other, beyond what its modules name
_EXL2_PARTS = ("q_invperm", "q_scale", "q_scale_max", "q_groups")
_FUSED_MLP = "model.layers.0.mlp.swiglu.w12.weight"


def faults(directory: Path, config: dict[str, Any]) -> Faults:
    """What is wrong with the checkpoint in `directory`, whose config.json is `config`, parsed.

    Raises `Unsupported` where the engine refuses that.
    """
    from exllamav2.model import ExLlamaV2
    from exllamav2.stloader import STFile, cleanup_stfiles

    read = read_config(config)
    cleanup_stfiles()  # type: ignore[no-untyped-call]
    shapes: dict[str, Shape] = {}
    for file in sorted(directory.glob("*.safetensors")):
        entries = STFile.open(str(file), keymap=read.arch.keymap).get_dict()
        shapes.update({name: tuple(entry["shape"]) for name, entry in entries.items() if "shape" in entry})
    missing: dict[str, None] = {}  # in order
    wrong: list[Misshapen] = []
    if _FUSED_MLP not in shapes:  # of those the modules do not name what they load
        modules = list(_leaves(ExLlamaV2(read).modules))
        wrong = misshapen(modules, shapes)
        for module in modules:
            missing.update(dict.fromkeys(_lacking(module, shapes.keys())))
    try:
        missing.update(dict.fromkeys(_found_by_the_engine(directory, list(missing))))
    finally:
        cleanup_stfiles()  # type: ignore[no-untyped-call]
    return Faults(list(missing), wrong)


def _leaves(modules: list[Any]) -> Iterator[Any]:
    for module in modules:
        if module.submodules:
            yield from _leaves(module.submodules)
        else:
            yield module


def _lacking(module: Any, names: Set[str]) -> list[str]:
    """What `module` would load and is not in `names` (ExLlamaV2Module.load_weight, load_weight_fused)."""
    fused = getattr(module, "f_key", None)
    has_bias = getattr(module, "has_bias", False)
    if fused and (fused in names or f"{fused}.weight" in names):
        return [f"{fused}.bias"] if has_bias and f"{fused}.bias" not in names else []
    for key in filter(None, (module.key, module.alt_key)):
        if f"{key}.q_weight" in names:
            parts = [*_EXL2_PARTS, *(["bias"] if has_bias else [])]
        elif f"{key}.weight" in names:
            parts = ["bias"] if has_bias else []
        else:
            continue
        return [f"{key}.{part}" for part in parts if f"{key}.{part}" not in names]
    return [f"{module.key}.*"]


def _found_by_the_engine(directory: Path, known: list[str]) -> list[str]:
    """What the engine's own check names beyond `known`: the vision tower's, for one, which it wants to be there."""
    from exllamav2.config import ExLlamaV2Config
    from exllamav2.stloader import STFile

    found: list[str] = []
    read_names = STFile.get_dict

    def completed(file: Any) -> dict[str, Any]:
        pretended = (name.removesuffix(".*") for name in [*known, *found] if name.endswith(".*"))
        return {**read_names(file), **{f"{name}.weight": {} for name in pretended}}

    with mock.patch.object(STFile, "get_dict", completed):
        while len(found) < _MOST:
            config = ExLlamaV2Config()
            config.model_dir = str(directory)
            try:
                with refusals_explained():
                    config.prepare()
            except ValueError as error:
                name = _NOT_FOUND.search(str(error))
                if name is None:
                    raise
                found.append(f"{name[1]}.*")
            else:
                break
    return found
