"""The tensors that exllamav3's modules load, by their class: names, types and shapes, for a layout of nothing else.

Read off each module's `load`. Where a class has tensors and none of these rules, a layout cannot be made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from bench.synth.layout import SMALL_DEVIATION, Content, Tensor
from bench.worker.interfaces.engine import Unsupported

# Their submodules load all that they have.
_OWN_NOTHING = frozenset(
    {"TransformerBlock", "ParallelDecoderBlock", "GatedMLP", "MLP", "BlockSparseMLP", "Attention", "SlidingAttention"}
)
_CODEBOOK = 0x83DCD12D  # exllamav3/modules/quant/exl3.py: codebook_mul1_mult, the converter's default
_MOST_BITS = 8
TILE = 16


def tensors_of(model: Any, strategy: Mapping[str, float], biased: frozenset[str]) -> Iterator[Tensor]:
    """Every tensor of `model`, in its order, with the bits of `strategy`; no key there means unquantised.

    `biased` are the last parts of the keys of projections with a bias. Raises `Unsupported`.
    """
    widths = _norm_widths(model)
    for module in model:
        kind = type(module).__name__
        if kind == "Linear":
            yield from _linear(module, strategy.get(module.key), module.key.rpartition(".")[2] in biased)
            continue
        rule = _RULES.get(kind)
        if rule is not None:
            yield from rule(module, model, widths)
        elif kind not in _OWN_NOTHING:
            raise Unsupported(f"which tensors exllamav3's module {kind} ({module.key}) loads is not known here")
        yield from _optional(module)


def _linear(module: Any, bits: float | None, biased: bool) -> Iterator[Tensor]:
    """A matrix in EXL3 (facts of its shapes: exllamav3/modules/quant/exl3.py), or unquantised."""
    key, rows, columns = module.key, module.in_features, module.out_features
    deviation = 1 / math.sqrt(rows)
    if bits is None or bits > _MOST_BITS:
        if module.alt_key and module.config.tie_word_embeddings:
            return  # the embeddings are the head's
        plain = module.out_features_unpadded, module.in_features_unpadded
        yield Tensor(f"{key}.weight", "F16", plain, Content.NORMAL, deviation=deviation)
        columns = module.out_features_unpadded
    else:
        shape = rows // TILE, columns // TILE, int(TILE * bits)
        halves = _CODEBOOK & 0xFFFF, _CODEBOOK >> 16
        yield Tensor(f"{key}.trellis", "I16", shape, Content.TRELLIS)
        yield Tensor(f"{key}.suh", "F16", (rows,), Content.SIGNS, deviation=1.0)
        yield Tensor(f"{key}.svh", "F16", (columns,), Content.SIGNS, deviation=deviation)
        yield Tensor(f"{key}.mul1", "I32", (), Content.CODEBOOK, halves)
    if biased:
        yield _small(f"{key}.bias", columns)


def _small(name: str, *shape: int, dtype: str = "F16") -> Tensor:
    return Tensor(name, dtype, shape, Content.NORMAL, deviation=SMALL_DEVIATION)


def _embedding(module: Any, model: Any, widths: Mapping[int, Any]) -> Iterator[Tensor]:
    yield _small(f"{module.key}.weight", module.vocab_size, module.hidden_size)


def _rms_norm(module: Any, model: Any, widths: Mapping[int, Any]) -> Iterator[Tensor]:
    if not module.unweighted:
        width = widths.get(id(module), model.config.hidden_size)
        yield Tensor(module.tensor_key, "F16", (module.groups * width,), Content.ONES)


def _layer_norm(module: Any, model: Any, widths: Mapping[int, Any]) -> Iterator[Tensor]:
    width = widths.get(id(module), model.config.hidden_size)
    yield Tensor(f"{module.key}.weight", "F16", width if isinstance(width, tuple) else (width,), Content.ONES)


def _delta_net(module: Any, model: Any, widths: Mapping[int, Any]) -> Iterator[Tensor]:
    heads = module.num_v_heads
    yield _small(module.key_a_log, heads, dtype="F32")
    yield _small(module.key_dt_bias, heads, dtype="BF16")
    kernel = module.conv_kernel_size
    if module.key_conv1d_weight is not None:
        yield _small(module.key_conv1d_weight, module.fdim_qkv, 1, kernel, dtype="BF16")


def _mamba(module: Any, model: Any, widths: Mapping[int, Any]) -> Iterator[Tensor]:
    for key in (module.key_a_log, module.key_dt_bias, module.key_d):
        yield _small(key, module.num_v_heads, dtype="BF16")
    yield _small(module.key_conv1d_weight, module.fdim_qkv, 1, module.conv_kernel_size, dtype="BF16")
    if model.config.config_dict.get("use_conv_bias"):
        yield _small(module.key_conv1d_bias, module.fdim_qkv, dtype="BF16")


def _gated_norm(module: Any, model: Any, widths: Mapping[int, Any]) -> Iterator[Tensor]:
    yield Tensor(f"{module.key}.weight", "BF16", (widths[id(module)],), Content.ONES)


def _latent_attention(module: Any, model: Any, widths: Mapping[int, Any]) -> Iterator[Tensor]:
    if module.indexer_mode:
        raise Unsupported("exllamav3's sparse attention (an indexer beside MLA) is not simulated")
    rows = module.num_q_heads * (module.qk_nope_head_dim + module.v_head_dim)
    yield _small(f"{module.key}.{module.key_kv_b}.weight", rows, module.kv_lora_rank)


def _short_conv(module: Any, model: Any, widths: Mapping[int, Any]) -> Iterator[Tensor]:
    channels = model.config.hidden_size
    yield _small(module.key_conv1d_weight, channels, 1, module.conv_kernel_size, dtype="BF16")


_RULES = {
    "Embedding": _embedding,
    "RMSNorm": _rms_norm,
    "LayerNorm": _layer_norm,
    "GatedRMSNorm": _gated_norm,
    "GatedDeltaNet": _delta_net,
    "Mamba2": _mamba,
    "MLAttention": _latent_attention,
    "ShortConv": _short_conv,
}


def _optional(module: Any) -> Iterator[Tensor]:
    """What a module has if its architecture gives it a key for that."""

    def key(name: str) -> Any:
        return getattr(module, name, None)

    if sinks := key("key_sinks"):
        yield _small(f"{module.key}.{sinks}", module.num_q_heads)
    if bias := key("e_score_correction_bias_key"):
        yield _small(f"{module.key}.{bias}", module.num_experts, dtype="F32")
    if scale := key("per_expert_scale_key"):
        yield _small(f"{module.key}.{scale}", module.num_experts, dtype="BF16")
    if scalar := key("key_layer_scalar"):
        yield Tensor(f"{module.key}.{scalar}", "BF16", (1,), Content.ONES)
    for alpha in ("key_alpha_p", "key_alpha_n"):
        if name := key(alpha):
            yield Tensor(name, "BF16", (1,), Content.ONES)
    for other in ("tid2eid_key", "e_score_bias_vl_key", "key_attn_resid_scalar", "key_mlp_resid_scalar"):
        if key(other):
            raise Unsupported(f"{module.key}: the tensor {key(other)} is not known here")


def _norm_widths(model: Any) -> dict[int, Any]:
    """The widths, or whole shapes, of norms that are not as wide as the hidden state, by the id of the module."""
    widths: dict[int, Any] = {}
    for module in model:
        head_dim = getattr(module, "head_dim", None)
        for name, heads in (("q_norm", "num_q_heads"), ("k_norm", "num_kv_heads"), ("v_norm", "num_kv_heads")):
            norm = getattr(module, name, None)
            if norm is not None and head_dim is not None:
                count = getattr(module, heads)
                of_each = type(norm).__name__ == "LayerNorm"  # Cohere's: weights of its own for each head
                widths[id(norm)] = (count, head_dim) if of_each else head_dim * (count if norm.span_heads else 1)
        kind = type(module).__name__
        if kind == "MLAttention":
            for name, width in (("q_a_layernorm", "q_lora_rank"), ("kv_a_layernorm", "kv_lora_rank")):
                if (norm := getattr(module, name, None)) is not None:
                    widths[id(norm)] = getattr(module, width)
        elif kind == "GatedDeltaNet":
            widths[id(module.norm)] = module.v_head_dim
        elif kind == "Mamba2":
            widths[id(module.norm)] = module.num_v_heads * module.v_head_dim
    return widths
