"""Tensors of another model than config.json describes are found by the headers; whatever the engine takes is not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.worker import cards
from bench.worker.engines.exllamav2.checkpoint import lay_out
from bench.worker.engines.exllamav2.inspection import faults
from bench.worker.interfaces.engine import Faults, Misshapen
from tests.synth import headers
from tests.worker.architectures import ARCHITECTURES, DENSE
from tests.worker.conftest import made_up_case

Entries = dict[str, tuple[str, list[int]]]


def _config(architecture: str, **changes: Any) -> dict[str, Any]:
    return {"architectures": [architecture], **DENSE, **ARCHITECTURES[architecture], **changes}


def _laid_out(config: dict[str, Any], bpw: float) -> Entries:
    with cards.open_machine(made_up_case(config)):
        layout = lay_out(config, bpw, None if bpw == 16 else 6)
    return {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in layout.tensors}


def _faults(folder: Path, entries: Entries, config: dict[str, Any]) -> Faults:
    """Of a checkpoint of `entries` beside `config`."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    with cards.open_machine(made_up_case(config)):
        (folder / "preprocessor_config.json").write_text(
            json.dumps(lay_out(config, 16.0, None).documents["preprocessor_config.json"])
        )
        headers.write_header(folder / "model.safetensors", entries)
        return faults(folder, config)


@pytest.mark.parametrize("bpw", [4.0, 16.0])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_synth_makes_suits_its_own_config(tmp_path: Path, architecture: str, bpw: float) -> None:
    for number, changes in enumerate(({}, {"vocab_size": 32003, "num_attention_heads": 16, "n_head": 16})):
        config = _config(architecture, **changes)
        found = _faults(tmp_path / str(number), _laid_out(config, bpw), config)
        assert asdict(found) == {"missing": [], "misshapen": []}


@pytest.mark.parametrize("bpw", [4.0, 16.0])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"hidden_size": 2048, "n_embd": 2048}, "model.embed_tokens.weight"),
        ({"vocab_size": 40000}, "model.embed_tokens.weight"),
        ({"vocab_size": 16000}, "model.embed_tokens.weight"),
        ({"num_attention_heads": 16, "n_head": 16, "head_dim": 128}, "q_proj"),
    ],
)
def test_weights_of_another_model_are_found(
    tmp_path: Path, architecture: str, bpw: float, keys: dict[str, int], named: str
) -> None:
    config = _config(architecture)
    found = _faults(tmp_path, _laid_out(config, bpw), {**config, **keys})
    assert any(named in each.tensor for each in found.misshapen), found


def _fused(entries: Entries, whole: str, parts: list[str]) -> Entries:
    """The same checkpoint with `parts` one below the other, as Phi-3 and InternLM2 keep them."""
    rows = sum(entries[part][1][0] for part in parts)
    kept = {name: entry for name, entry in entries.items() if name not in parts}
    return {**kept, whole: ("F16", [rows, entries[parts[0]][1][1]])}


def _phi3() -> tuple[dict[str, Any], Entries]:
    config = _config("Phi3ForCausalLM")
    entries = _laid_out(config, 16.0)
    for number in range(2):
        layer = f"model.layers.{number}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        entries = _fused(entries, f"{attention}.qkv_proj.weight", [f"{attention}.{each}_proj.weight" for each in "qkv"])
        entries = _fused(
            entries, f"{mlp}.gate_up_proj.weight", [f"{mlp}.{each}_proj.weight" for each in ("gate", "up")]
        )
    return config, entries


def test_fused_layers_are_as_long_as_their_parts(tmp_path: Path) -> None:
    config, entries = _phi3()
    assert _faults(tmp_path, entries, config) == Faults([], [])
    found = _faults(tmp_path, entries, {**config, "num_key_value_heads": 8}).misshapen
    assert found[0] == Misshapen("model.layers.0.self_attn.qkv_proj.weight", (2048, 1024), (3072, 1024))
    assert len(found) == 2  # once for each layer, not for each of its parts


@pytest.mark.parametrize("bpw", [4.0, 16.0])
def test_rows_that_are_padding_are_taken_where_the_engine_takes_them(tmp_path: Path, bpw: float) -> None:
    """An unquantised embedding or head is used as it is; an EXL2 head has the columns that the engine pads to."""
    config = _config("LlamaForCausalLM", vocab_size=32003)
    entries = _laid_out(config, bpw)
    entries["model.embed_tokens.weight"] = ("F16", [32128, 1024])
    head = "lm_head.q_weight" if bpw < 16 else "lm_head.weight"
    assert _faults(tmp_path, entries, config) == Faults([], [])
    kind, shape = entries[head]
    if bpw < 16:
        assert shape[1] == 32032
        entries[head] = (kind, [shape[0], 32128])
        assert _faults(tmp_path, entries, config).misshapen == [Misshapen(head, (shape[0], 32128), (shape[0], 32032))]
    else:
        entries[head] = (kind, [32128, 1024])
        assert _faults(tmp_path, entries, config) == Faults([], [])


def test_a_tied_head_is_the_embedding(tmp_path: Path) -> None:
    config = _config("GemmaForCausalLM")
    entries = {name: entry for name, entry in _laid_out(config, 16.0).items() if not name.startswith("lm_head")}
    assert _faults(tmp_path, entries, config) == Faults([], [])


def test_a_bias_that_the_engine_takes_none_of(tmp_path: Path) -> None:
    """A Llama with attention_bias: ExLlamaV2 ends with an AssertionError when it loads one."""
    config = _config("LlamaForCausalLM")
    entries = {**_laid_out(config, 4.0), "model.layers.1.self_attn.k_proj.bias": ("F16", [512])}
    assert _faults(tmp_path, entries, config).misshapen == [
        Misshapen("model.layers.1.self_attn.k_proj.bias", (512,), None)
    ]


def test_what_no_module_loads_is_not_looked_at(tmp_path: Path) -> None:
    """Vision towers, layers that predict further tokens, buffers: ExLlamaV2 never reads them for text."""
    config = _config("LlamaForCausalLM")
    more = {
        "vision_tower.blocks.0.attn.qkv.weight": ("BF16", [3, 5]),
        "model.layers.2.mlp.up_proj.weight": ("BF16", [1, 1]),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [64]),
    }
    assert _faults(tmp_path, {**_laid_out(config, 4.0), **more}, config) == Faults([], [])
