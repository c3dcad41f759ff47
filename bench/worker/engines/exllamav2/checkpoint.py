"""Lays out an EXL2 checkpoint for any architecture that exllamav2 knows: names, shapes and bit widths, no weights.

Tensor shapes follow `AdaptiveGPTQ.pack` (exllamav2/conversion/adaptivegptq.py), the mix of bit widths the quantiser's
own options (exllamav2/conversion/qparams.py). What fills the layout is elsewhere: a sparse file here, random weights in
bench/checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.allocator import dtypes
from bench.core.case import Case
from bench.core.files import made_directory
from bench.synth.layout import SMALL_DEVIATION, Content, Layout, Tensor
from bench.synth.shards import tables_only, write_shard
from bench.worker.engines.exllamav2.vision import tower_layout
from bench.worker.interfaces.engine import Unsupported

_FP16_BPW = 16.0
_UNIT_ROWS = 32  # a whole number of words for each number of bits: the kernels' step


def layout_of(case: Case, layouts: Path) -> Path:
    """The model directory of `case` below `layouts`, written at the first call; see `write_checkpoint`."""
    key = f"{case.model.fingerprint}-{case.bpw}-{case.head_bits}{'-vision' if case.vision else ''}"
    directory = layouts / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not directory.exists():
        write_checkpoint(directory, case.model.config, case.bpw, case.head_bits, case.vision)
    return directory


def write_checkpoint(
    directory: Path, config: dict[str, Any], bpw: float, head_bits: int | None, vision: bool = False
) -> None:
    """Makes `directory` a model directory of `config` (a parsed config.json) at `bpw` bits per weight.

    `head_bits` are those of the output layer; None leaves it unquantised. An unquantised model is in the type that
    `config` names (`bench.allocator.dtypes`); what stays unquantised in an EXL2 one is FP16, as its converter writes
    it. The file is a valid safetensors file whose body is a hole: it takes no space on disk, and only the group tables,
    which the loader reads, hold data.

    With `vision` the tensors of the vision tower are there as they were published, else empty ones in their place.

    `directory` must not exist; it appears complete or not at all. exllamav2 must be importable.
    """
    layout = lay_out(config, bpw, head_bits, vision)
    with made_directory(directory, lambda made: (made / "config.json").exists()) as partial:
        for name, document in layout.documents.items():
            (partial / name).write_text(json.dumps(document))
        write_shard(partial / "model.safetensors", layout.tensors, tables_only, {})


def lay_out(config: dict[str, Any], bpw: float, head_bits: int | None, vision: bool = False) -> Layout:
    """The checkpoint of `config` at `bpw` bits per weight; see `write_checkpoint`."""
    documents = {"config.json": config, "preprocessor_config.json": _preprocessor_config(config)}
    with tempfile.TemporaryDirectory(prefix="vram-bench-") as folder:
        for name, document in documents.items():
            (Path(folder) / name).write_text(json.dumps(document))
        tensors = list(_tensors(Path(folder), bpw, head_bits))
        if vision:
            # The converter copies them as they are.
            tower = [replace(each, dtype=dtypes.unquantised(config)) for each in _tower(Path(folder), config)]
            named = {each.name for each in tower}
            tensors = [*tower, *(each for each in tensors if each.name not in named)]
    if bpw == _FP16_BPW:
        dtype = dtypes.unquantised(config)
        tensors = [replace(tensor, dtype=dtype) if _is_unquantised(tensor) else tensor for tensor in tensors]
    return Layout(documents, tensors)


def _tower(model_dir: Path, config: dict[str, Any]) -> list[Tensor]:
    """The tensors of the vision tower; what else of it is looked for is empty."""
    from exllamav2.config import ExLlamaV2Config

    with tempfile.TemporaryDirectory(prefix="vram-bench-") as folder:
        # The engine reads what it needs of a tower only where there are tensors.
        for path in model_dir.iterdir():
            (Path(folder) / path.name).write_bytes(path.read_bytes())
        write_shard(Path(folder) / "model.safetensors", list(_tensors(model_dir, 4.0, None)), tables_only, {})
        return list(tower_layout(ExLlamaV2Config(folder), config))


def _is_unquantised(tensor: Tensor) -> bool:
    """Whether it is no part of a matrix in the EXL2 format, as the head may be."""
    return tensor.dtype == "F16" and tensor.content is not Content.LARGEST_SCALES


def _preprocessor_config(config: dict[str, Any]) -> dict[str, Any]:
    """What exllamav2 insists on reading for a model with a vision tower; no image is ever processed."""
    vision = config.get("vision_config") or {}
    family = {"siglip_vision_model": "Gemma3", "pixtral": "Pixtral"}.get(vision.get("model_type", ""), "Qwen2VL")
    return {
        "image_processor_type": f"{family}ImageProcessor",
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": 896, "width": 896, "longest_edge": vision.get("image_size", 1540)},
        "patch_size": vision.get("patch_size", 14),
        "merge_size": vision.get("spatial_merge_size", 2),
        "temporal_patch_size": 2,
        "min_pixels": 3136,
        "max_pixels": 12845056,
    }


def _tensors(model_dir: Path, bpw: float, head_bits: int | None) -> Iterator[Tensor]:
    """Every tensor of the model, found by walking the module graph that exllamav2 itself builds from config.json."""
    from exllamav2.attn import ExLlamaV2Attention
    from exllamav2.config import ExLlamaV2Config
    from exllamav2.embedding import ExLlamaV2Embedding
    from exllamav2.linear import ExLlamaV2Linear
    from exllamav2.mlp import ExLlamaV2MLP
    from exllamav2.model import ExLlamaV2
    from exllamav2.moe_mlp import ExLlamaV2MoEMLP
    from exllamav2.parallel_decoder import ExLlamaV2ParallelDecoder
    from exllamav2.pos_embedding import ExLlamaV2PosEmbedding

    config = ExLlamaV2Config()
    config.model_dir = str(model_dir)
    config.prepare(no_tensors=True)
    model = ExLlamaV2(config)
    attention: list[list[Any]] = []  # q, k, v, o of each layer
    mlps: list[list[list[Any]]] = []  # gate, up, down of each layer, each a list of experts
    plain: list[Any] = []

    def visit_attention(module: Any) -> None:
        attention.append([module.q_proj, module.k_proj, module.v_proj, module.o_proj])
        plain.extend(m for m in module.submodules if not isinstance(m, ExLlamaV2Linear))

    def visit_mlp(module: Any) -> None:
        mlps.append([[module.gate_proj] if module.gate_proj else [], [module.up_proj], [module.down_proj]])
        plain.extend(m for m in module.submodules if not isinstance(m, ExLlamaV2Linear))

    for module in model.modules:
        if isinstance(module, ExLlamaV2ParallelDecoder):
            plain.append(module.input_layernorm)
            visit_attention(module.attn)
            visit_mlp(module.mlp)
        elif isinstance(module, ExLlamaV2Attention):
            visit_attention(module)
        elif isinstance(module, ExLlamaV2MLP):
            visit_mlp(module)
        elif isinstance(module, ExLlamaV2MoEMLP):
            mlps.append([module.w1, module.w3, module.w2])
            plain.append(module.post_attention_layernorm)
            shape = (module.gate.out_features, module.gate.in_features)
            yield Tensor(
                f"{module.gate.key}.weight", "F16", shape, Content.NORMAL, deviation=_deviation(module.gate.in_features)
            )
        elif isinstance(module, ExLlamaV2Linear):
            yield from _linear(module, None if head_bits is None else _head_options()[head_bits])
        elif isinstance(module, ExLlamaV2Embedding):
            yield _small(f"{module.key}.weight", config.vocab_size, config.hidden_size)
        elif isinstance(module, ExLlamaV2PosEmbedding):
            yield _small(f"{module.key}.weight", config.max_seq_len, config.hidden_size)
        else:
            plain.append(module)
    for module in plain:
        yield from _norm(module, config)
    yield from _required_but_unused(config)
    for linear, qparams in _choose_bits(attention, mlps, bpw):
        yield from _linear(linear, qparams)


def _head_options() -> dict[int, Any]:
    from exllamav2.conversion.qparams import qparams_headoptions

    options: dict[int, Any] = qparams_headoptions
    return options


def _choose_bits(attention: list[list[Any]], mlps: list[list[list[Any]]], bpw: float) -> Iterator[tuple[Any, Any]]:
    """Each linear layer with the quantisation that brings the model to `bpw`, or below by part of a layer's step.

    The quantiser mixes neighbouring options over the layers by the error that it measures; without weights there is no
    error to measure, so the richer option of each pair is spread evenly over the layers. The sum of bits is the same.
    """
    from exllamav2.conversion.qparams import qparams_attn, qparams_mlp

    if bpw == _FP16_BPW:
        for layer in attention:
            yield from ((linear, None) for linear in layer)
        for experts in mlps:
            yield from ((linear, None) for group in experts for linear in group)
        return
    for layers, options in (
        ([[[linear] for linear in layer] for layer in attention], qparams_attn),
        (mlps, qparams_mlp),
    ):
        levels = sorted((_bits_per_weight(layers[0], option), index) for index, option in enumerate(options))
        lower = max((level for level in levels if level[0] <= bpw), default=levels[0])
        upper = min((level for level in levels if level[0] > bpw), default=levels[-1])
        span = upper[0] - lower[0]
        share = min(1.0, max(0.0, (bpw - lower[0]) / span)) if span else 0.0
        for number, layer in enumerate(layers):
            richer = math.floor((number + 1) * share + 1e-9) > math.floor(number * share + 1e-9)
            option = options[upper[1] if richer else lower[1]]
            for group, qparams in zip(layer, option, strict=True):
                yield from ((linear, qparams) for linear in group)


def _bits_per_weight(layer: list[list[Any]], option: list[Any]) -> float:
    bits = weights = 0
    for group, qparams in zip(layer, option, strict=True):
        for linear in group:
            bits += qparams.total_bits((linear.in_features, linear.out_features))
            weights += linear.in_features * linear.out_features
    return bits / weights


def _deviation(inputs: int) -> float:
    """That of weights which keep the size of activations: 0.016 for 4,096 inputs."""
    return 1 / math.sqrt(inputs)


def _small(name: str, *shape: int) -> Tensor:
    return Tensor(name, "F16", shape, Content.NORMAL, deviation=SMALL_DEVIATION)


def _linear(linear: Any, qparams: Any) -> Iterator[Tensor]:
    """The tensors of one linear layer; `qparams` None leaves it unquantised."""
    key, rows, columns = linear.key, linear.in_features, linear.out_features
    deviation = _deviation(rows)
    if qparams is None:
        shape = (columns - linear.padding, rows)
        transposed = linear.model.config.arch.orig_weights_transposed and linear.has_bias
        shape = shape[::-1] if transposed else shape
        yield Tensor(f"{key}.weight", "F16", shape, Content.NORMAL, deviation=deviation)
        if linear.has_bias:
            yield _small(f"{key}.bias", columns - linear.padding)
        return
    if rows % _UNIT_ROWS:
        raise Unsupported(
            f"{key} has {rows} inputs, and EXL2 packs rows by {_UNIT_ROWS}; with bpw=16 it could be run unquantised"
        )
    groups, packed_rows = _groups(rows, qparams)
    num_groups = len(groups) // 2
    yield Tensor(f"{key}.q_weight", "I32", (packed_rows, columns), Content.QUANTS, groups)
    yield Tensor(f"{key}.q_invperm", "I32", (rows,), Content.PERMUTATION)
    yield Tensor(f"{key}.q_scale", "I32", (num_groups, columns // 8), Content.SCALES)
    yield Tensor(f"{key}.q_scale_max", "F16", (num_groups,), Content.LARGEST_SCALES, groups, deviation)
    yield Tensor(f"{key}.q_groups", "I16", (len(groups),), Content.GROUPS, groups)
    if linear.has_bias:
        yield _small(f"{key}.bias", columns)


@lru_cache(maxsize=256)
def _groups(rows: int, qparams: Any) -> tuple[tuple[int, ...], int]:
    """Of each group of rows the bits and the first packed row, in turn, and how many packed rows there are in all."""
    numbers: list[int] = []
    packed_rows = 0
    remaining = rows
    for bits, share in zip(qparams.bits, qparams.bits_prop, strict=True):
        size = qparams.group_size[bits]
        for _ in range(math.ceil(min(rows * share, remaining) / size)):
            group_rows = min(size, remaining)
            numbers += [bits, packed_rows]
            packed_rows += math.ceil(group_rows * bits / 32)
            remaining -= group_rows
    return tuple(numbers), packed_rows


def _norm(module: Any, config: Any) -> Iterator[Tensor]:
    from exllamav2.headnorm import ExLlamaV2HeadNorm
    from exllamav2.layernorm import ExLlamaV2LayerNorm

    # Gemma's norms multiply by 1 + weight; the engine adds it when it loads them.
    neutral = Content.ZEROS if module.archparams.norm_constant_bias else Content.ONES
    if isinstance(module, ExLlamaV2HeadNorm):
        yield Tensor(f"{module.key}.weight", "F16", (module.num_heads, module.head_dim), neutral)
        return
    yield Tensor(f"{module.key}.weight", "F16", (config.hidden_size,), neutral)
    if isinstance(module, ExLlamaV2LayerNorm) and config.arch.lm.attention_bias_o:
        yield Tensor(f"{module.key}.bias", "F16", (config.hidden_size,), Content.ZEROS)


def _required_but_unused(config: Any) -> Iterator[Tensor]:
    """Empty tensors for the vision parts that exllamav2 looks for and a text-only load never touches."""
    for arch, prefix in ((config.arch.mmp, config.arch.mmp_prefix), (config.arch.vt, config.arch.vt_prefix)):
        keys = [*arch.expect_keys]
        for layer in range(config.num_hidden_layers):
            keys += [[f"model.layers.{layer}.{name}" for name in names] for names in arch.layer_keys]
        for names in keys:
            yield Tensor(f"{prefix}{names[0]}.weight", "F16", (0,), Content.ZEROS)
