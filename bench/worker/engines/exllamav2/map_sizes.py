"""What the modules of an ExLlamaV2 model say of themselves to `set_device_map`, so that its arithmetic can be done."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

from bench.engines.exllamav2.device_map import MapSizes, ModuleSizes
from bench.tensor_files import Entry, read_header
from bench.trace.passes import NoPrediction

_LENGTHS = (256, 512, 4096)  # tokens: two for the line, one to see that it is a line


def map_sizes(model: Any, numbered: Iterable[tuple[int, int, Any]]) -> MapSizes:
    """Of an ExLlamaV2 that is not loaded; `numbered` are the layer, the number in it and the module itself.

    Raises `NoPrediction` where scratch does not follow the length of the context.
    """
    from exllamav2 import attn
    from exllamav2.architecture import RopeStyle

    config = model.config
    headers: dict[str, dict[int, str]] = {}
    modules = []
    for layer, number, module in numbered:
        scratch = _scratch(module, config)
        tensors, other_bytes = footprint(module, layer, headers)
        is_attention = isinstance(module, attn.ExLlamaV2Attention)
        heads = module.num_attention_heads if is_attention else 0
        fixed = module.scratch_space_fixed()
        modules.append(ModuleSizes(layer, number, tensors, other_bytes, fixed, scratch, heads))
    flash = attn.has_flash_attn and not config.no_flash_attn
    chunk = config.max_input_len
    return MapSizes(
        modules=modules,
        rope_dim=0 if model.archparams.rope_style == RopeStyle.NONE else config.head_dim,
        state_bytes=2 * config.max_batch_size * chunk * (config.hidden_size + chunk),
        max_attention_size=config.max_attention_size,
        keeps_no_scores=bool(flash or (attn.has_xformers and not config.no_xformers)),
    )


def _scratch(module: Any, config: Any) -> list[list[int]]:
    """What a module counts as scratch, as lines over max_seq_len, of which the highest counts."""
    short, longer, _ = _LENGTHS

    def line(part: Any) -> list[int]:
        counted = _counted(part, config)
        per_token = (counted[1] - counted[0]) // (longer - short)
        return [counted[0] - per_token * short, per_token]

    # The two parts of a parallel decoder share it.
    lines = [line(part) for part in ([module.attn, module.mlp] if module.name == "ParallelDecoder" else [module])]
    if [max(a + b * length for a, b in lines) for length in _LENGTHS] != _counted(module, config):
        raise NoPrediction(f"the scratch that {module.name} counts does not follow the length of the context")
    return lines


def _counted(module: Any, config: Any) -> list[int]:
    asked, counted = config.max_seq_len, []
    for config.max_seq_len in _LENGTHS:
        counted.append(module.scratch_space())
    config.max_seq_len = asked
    return counted


def footprint(module: Any, layer: int, headers: dict[str, dict[int, str]]) -> tuple[list[str], int]:
    """The tensors in a module's footprint, by their names in the files, and the bytes that are none of them."""
    from exllamav2.stloader import STFile

    names: list[str] = []
    measured = 0
    measure: Callable[[Any, str], int] = STFile.measure

    def heard(file: Any, key: str) -> int:
        nonlocal measured
        size = measure(file, key)
        if file.filename not in headers:
            entries: dict[str, Entry] = read_header(Path(file.filename))
            headers[file.filename] = {entry.start: name for name, entry in entries.items() if entry.size_bytes}
        if size:
            start = file.header_size + file.header[key]["data_offsets"][0]
            names.append(re.sub(rf"\.{layer}\.", ".{}.", headers[file.filename][start], count=1))
            measured += size
        return size

    with mock.patch.object(STFile, "measure", heard):
        counted = module.weight_footprint()
    return names, counted - measured
