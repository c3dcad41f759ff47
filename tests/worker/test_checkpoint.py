"""Layouts of EXL2 checkpoints: valid safetensors, of the asked size, that exllamav2 loads like any other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from bench.config.models import resolve_model
from bench.config.settings import ModelSettings
from bench.core.case import Case
from bench.core.messages import Result
from bench.notes.rules import SYNTHETIC_NOTE
from bench.synth.clone import lay_out_like
from bench.synth.make import Recipe, make
from bench.worker import cards
from bench.worker.engines.exllamav2.checkpoint import lay_out, write_checkpoint
from tests.synth.exl2 import Array, dequantise, groups, read
from tests.worker.architectures import ARCHITECTURES, DENSE, EXPERTS
from tests.worker.conftest import Run, catalogue_case, made_up_case

_SMALL = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 512,
}


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints") / "tinyllama"
    case = catalogue_case("model=tinyllama_1_1b", "max_seq_len=512")
    with cards.open_machine(case):
        write_checkpoint(directory, case.model.config, bpw=4.0, head_bits=6)
    return directory


def test_the_file_is_valid_and_takes_no_disk(laid_out: Path) -> None:
    path = laid_out / "model.safetensors"
    with safe_open(path, framework="numpy") as file:
        names = set(file.keys())
        groups = file.get_tensor("model.layers.0.self_attn.q_proj.q_groups")
    assert "lm_head.q_weight" in names
    assert "model.embed_tokens.weight" in names
    assert groups[0] in (2, 3, 4, 5, 6, 8)
    assert path.stat().st_blocks * 512 < path.stat().st_size / 50


@pytest.mark.parametrize("bpw", [2.5, 3.0, 4.0, 5.0, 6.0, 8.0])
def test_the_mean_of_all_layers_is_the_asked_bpw(tmp_path: Path, bpw: float) -> None:
    case = catalogue_case("model=mistral_7b_v0_3", "max_seq_len=512")
    with cards.open_machine(case):
        write_checkpoint(tmp_path / "m", case.model.config, bpw, head_bits=6)
    assert resolve_model(ModelSettings(name="local", path=str(tmp_path / "m"))).bpw == pytest.approx(bpw, abs=0.05)


def test_weights_on_disk_are_simulated_from_their_headers(laid_out: Path, run: Callable[[Case], Run]) -> None:
    from_catalogue = catalogue_case("model=tinyllama_1_1b", "max_seq_len=512")
    on_disk = resolve_model(ModelSettings(name="local", path=str(laid_out)))
    assert on_disk.bpw == pytest.approx(4.0, abs=0.05)
    assert run(replace(from_catalogue, model=on_disk)).memory == run(from_catalogue).memory


@pytest.mark.parametrize(
    ("architecture", "bpw"),
    [
        *(("LlamaForCausalLM", bpw) for bpw in (2.5, 4.0, 16.0)),
        ("MixtralForCausalLM", 2.5),
        ("Gemma2ForCausalLM", 16.0),
        ("CohereForCausalLM", 4.0),
        ("Qwen2ForCausalLM", 2.5),
    ],
)
def test_real_bytes_take_the_memory_of_the_sparse_layout(
    tmp_path: Path, run: Callable[[Case], Run], architecture: str, bpw: float
) -> None:
    """Sharded and filled, a checkpoint is loaded with the same peaks, and its tensors hold what the engine expects."""
    config = {"architectures": [architecture], **DENSE, "vocab_size": 4096, **ARCHITECTURES[architecture]}
    sparse = made_up_case(config, bpw=bpw, head_bits=None if bpw == 16 else 6, max_seq_len=512, max_input_len=256)
    with cards.open_machine(sparse):
        layout = lay_out(config, bpw, sparse.head_bits)
    make(Recipe(sparse, seed=1, shard_bytes=8 << 20, sparse=False), layout, tmp_path / "made")
    on_disk = resolve_model(ModelSettings(name="local", path=str(tmp_path / "made")))
    assert len(list((tmp_path / "made").glob("*.safetensors"))) > 1
    assert on_disk.has_weights
    filled = run(replace(sparse, model=on_disk))
    wanted = run(sparse)
    assert filled.memory == wanted.memory
    assert filled.parts == wanted.parts
    assert SYNTHETIC_NOTE in filled.of(Result)[0].notes
    _check(read(tmp_path / "made"), config)


def test_a_twin_takes_the_memory_of_what_it_was_laid_out_like(tmp_path: Path, run: Callable[[Case], Run]) -> None:
    """Where a trained checkpoint is at hand, this is how it is compared: the values are all that differs."""
    config = {"architectures": ["MixtralForCausalLM"], **DENSE, "vocab_size": 4096, **EXPERTS}
    case = made_up_case(config, bpw=3.2, max_seq_len=512, max_input_len=256)
    with cards.open_machine(case):
        write_checkpoint(tmp_path / "given", config, bpw=3.2, head_bits=6)
    make(Recipe(case, seed=1, shard_bytes=8 << 20, sparse=False), lay_out_like(tmp_path / "given"), tmp_path / "twin")
    given, clone = (
        run(replace(case, model=resolve_model(ModelSettings(name="local", path=str(tmp_path / name)))))
        for name in ("given", "twin")
    )
    assert (given.memory, given.parts) == (clone.memory, clone.parts)
    tensors = read(tmp_path / "twin")
    for expert in range(2):
        assert np.isfinite(dequantise(tensors, f"model.layers.0.block_sparse_moe.experts.{expert}.w2")).all()


def _check(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    """Every tensor is finite; every EXL2 layer is valid, and some are dequantised."""
    gemma = "Gemma" in config["architectures"][0]
    for name, values in tensors.items():
        if values.dtype in (np.float16, np.float32):
            assert np.isfinite(values).all(), name
        if "norm" in name and name.endswith(".weight"):
            assert (values == (0 if gemma else 1)).all(), name  # the engine adds 1 to those of Gemma
    keys = [name.removesuffix(".q_weight") for name in tensors if name.endswith(".q_weight")]
    for number, key in enumerate(keys):
        permutation = tensors[f"{key}.q_invperm"]
        assert (np.sort(permutation) == np.arange(len(permutation))).all(), key
        table = groups(tensors, key)
        bits = [each[0] for each in table]
        assert bits == sorted(bits, reverse=True), key  # the kernels take the widths in this order
        assert sum(size for _, _, size in table) == len(permutation), key
        assert sum(-(-size * bits // 32) for bits, _, size in table) == len(tensors[f"{key}.q_weight"]), key
        if number % 7 == 0:
            weights = dequantise(tensors, key)
            assert np.isfinite(weights).all()
            assert weights.std() * math.sqrt(len(weights)) == pytest.approx(1, abs=0.05), key


def test_activations_stay_small_through_80_layers(tmp_path: Path) -> None:
    """The dequantised weights as a Llama in NumPy, without rotation: what FP16 could not hold would be seen here."""
    config = {"architectures": ["LlamaForCausalLM"], **DENSE, **_SMALL, "num_hidden_layers": 80}
    case = made_up_case(config, bpw=2.4)
    with cards.open_machine(case):
        layout = lay_out(config, 2.4, 6)
    make(Recipe(case, seed=0, shard_bytes=1 << 30, sparse=False), layout, tmp_path / "deep")
    tensors = read(tmp_path / "deep")
    largest = 0.0

    def linear(x: Array, key: str) -> Array:
        nonlocal largest
        out: Array = x @ dequantise(tensors, key)
        largest = max(largest, float(np.abs(out).max()))
        return out

    def norm(x: Array) -> Array:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)

    ids = np.random.default_rng(0).integers(0, config["vocab_size"], 32)
    x = tensors["model.embed_tokens.weight"][ids].astype(np.float32)
    heads, head_dim = config["num_attention_heads"], config["head_dim"]
    mask = np.triu(np.full((32, 32), -np.inf), 1)
    for number in range(80):
        layer = f"model.layers.{number}"
        q, k, v = (linear(norm(x), f"{layer}.self_attn.{name}_proj").reshape(32, -1, head_dim) for name in "qkv")
        k, v = (each.repeat(heads // each.shape[1], axis=1) for each in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(head_dim) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        attended = np.einsum("hij,jhd->ihd", scores / scores.sum(-1, keepdims=True), v).reshape(32, -1)
        x = x + linear(attended, f"{layer}.self_attn.o_proj")
        gate, up = (linear(norm(x), f"{layer}.mlp.{name}_proj") for name in ("gate", "up"))
        x = x + linear(gate / (1 + np.exp(-gate)) * up, f"{layer}.mlp.down_proj")
        largest = max(largest, float(np.abs(x).max()))
    logits = linear(norm(x), "lm_head")
    assert np.isfinite(logits).all()
    assert 0.5 < logits.std() < 2
    assert largest < 100  # FP16 goes to 65,504
