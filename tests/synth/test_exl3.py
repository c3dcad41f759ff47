"""EXL3 checkpoints with random weights: the twin of one that is there has its headers and its codebook."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from bench.synth.clone import lay_out_like
from bench.synth.layout import Content, Tensor
from bench.synth.shards import write_shard
from bench.synth.values import Values
from bench.tensor_files import read_header

LAYER = "model.layers.0.self_attn.q_proj"
SVH = 1 / math.sqrt(128)  # of 128 inputs
MUL1 = (0xD12D, 0x83DC)
THERE = [
    Tensor("model.norm.weight", "F16", (128,), Content.ONES),
    Tensor(f"{LAYER}.trellis", "I16", (8, 16, 48), Content.TRELLIS),
    Tensor(f"{LAYER}.suh", "F16", (128,), Content.SIGNS, deviation=1.0),
    Tensor(f"{LAYER}.svh", "F16", (256,), Content.SIGNS, deviation=SVH),
    Tensor(f"{LAYER}.mul1", "I32", (), Content.CODEBOOK, MUL1),
]


def test_a_twin_has_the_same_tensors_with_a_trellis_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    write_shard(tmp_path / "model.safetensors", THERE, Values(0).chunks, {})
    assert {each.name: each for each in lay_out_like(tmp_path).tensors} == {each.name: each for each in THERE}
    entry = read_header(tmp_path / "model.safetensors")[f"{LAYER}.svh"]
    with (tmp_path / "model.safetensors").open("rb") as file:
        file.seek(entry.start)
        scales = np.frombuffer(file.read(entry.size_bytes), "<f2")
    assert set(np.abs(scales)) == {np.float16(SVH)}
    assert 64 < (scales < 0).sum() < 192


def test_bits_of_the_trellis_are_even() -> None:
    (trellis,) = [each for each in THERE if each.content is Content.TRELLIS]
    drawn = np.concatenate([np.frombuffer(chunk, "<u2") for chunk in Values(0).chunks(trellis)])
    assert len(drawn) == 8 * 16 * 48
    ones = np.unpackbits(drawn.view("u1")).mean()
    assert abs(ones - 0.5) < 0.01
