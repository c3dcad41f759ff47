"""How fast a card that is not there might decode: an estimate from bytes and bandwidth, never a measurement.

Decoding one token at a time reads every weight once, so the card's memory sets the pace:
tokens/s = efficiency * bandwidth / bytes moved per token. docs/speed.md says what is counted, where each figure comes
from, and how far the estimate is from published speeds (much too fast for models below 3B).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bench.allocator.limits import supports_flash_attention
from bench.core.case import Case, ModelSpec
from bench.core.split import Split, SplitBy
from bench.engines.registry import engine_of

_FP16_BITS = 16
_KEPT_MODELS = 64  # whose sizes are remembered: thousands of cells are of a few
_CACHE_GROUP = 32  # elements that share an FP16 scale

# The one architecture with the usual keys whose MLP has no gate: two matrices, not three (architecture.py there).
_UNGATED = "Starcoder2ForCausalLM"
# Keys of layers that are built otherwise: latent attention, shared experts. They are not estimated.
_OTHER_LAYERS = ("kv_lora_rank", "n_routed_experts", "shared_expert_intermediate_size")


@dataclass(frozen=True)
class _Shape:
    """The sizes of a model's matrices, in elements. A dense model has one expert, which is always active."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    experts: int
    active_experts: int
    mlp_matrices: int


@dataclass(frozen=True)
class Step:
    """The bytes that a step of decoding, a token of each sequence of a batch, moves through the card's memory."""

    weights_bytes: float
    cache_bytes: float  # of all sequences together, unpacked and copied as the attention needs it


def step_of(case: Case) -> Step | None:
    """The step of a case with its context full; None where its config lacks a size."""
    shape = _read_shape(case.model)
    if shape is None:
        return None
    return Step(_weight_bytes(case, shape), case.batch_size * _cache_bytes(case, shape))


def estimated_speed(case: Case) -> float | None:
    """Tokens a second of all sequences together on a simulated card with the context full, estimated.

    A step reads the weights once and the cache of each sequence: batch_size * efficiency * bandwidth / bytes moved.
    Several cards take turns, each with its own layers, so that alike ones are as fast as one that holds all; what cards
    of different bandwidths read is known only when they are loaded, and what tensor parallel gains by nobody's figures.
    None for a real card, which is measured, and where bandwidth is unknown or config.json lacks a size.
    """
    step, bandwidth = step_of(case), case.device.memory_bandwidth_bytes_per_s
    if step is None or not bandwidth or not case.device.is_simulated:
        return None
    if any(device.memory_bandwidth_bytes_per_s != bandwidth for device in case.more_devices) or (
        case.split is not None and Split.parse(case.split).by is SplitBy.TENSOR_PARALLEL
    ):
        return None
    efficiency = engine_of(case.engine).decode_efficiency
    if efficiency is None:
        return None
    moved_bytes = step.weights_bytes + step.cache_bytes
    return case.batch_size * efficiency * bandwidth / moved_bytes


def _copies_for_each_head(case: Case) -> bool:
    """Whether attention runs by other kernels than flash-attn's; `auto` is flash-attn where the card can run it."""
    if not engine_of(case.engine).attentions:
        return False
    return case.attention != "flash" and not (case.attention == "auto" and supports_flash_attention(case.device))


def _weight_bytes(case: Case, shape: _Shape) -> float:
    """Bytes of weights that a step reads.

    All linear layers at `bpw` (which includes scales and permutations, as the engine's converter counts it), the output
    layer at `head_bits`, and the routers of experts in FP16. Of the experts those that a step of `batch_size` tokens
    is expected to choose if each token chooses at random. The embeddings stay on the host. `head_bits` None means
    FP16 in a model of 16 bpw, and the converter's default in any other.
    """
    bpw, head_bits = case.bpw, case.head_bits
    attention = 2 * shape.hidden * shape.head_dim * (shape.heads + shape.kv_heads)  # q and o; k and v
    mlp = shape.mlp_matrices * shape.hidden * shape.intermediate * _experts_read(shape, case.batch_size)
    router_bytes = 2 * shape.hidden * shape.experts if shape.experts > 1 else 0
    if head_bits is None:
        head_bits = _FP16_BITS if bpw == _FP16_BITS else engine_of(case.engine).default_head_bits
    head_bytes = shape.hidden * shape.vocab * head_bits / 8
    return shape.layers * ((attention + mlp) * bpw / 8 + router_bytes) + head_bytes


def _experts_read(shape: _Shape, batch_size: int) -> float:
    """Different experts that `batch_size` tokens are expected to choose; for one token those that are active."""
    return shape.experts * (1 - (1 - shape.active_experts / shape.experts) ** batch_size)


def _cache_bytes(case: Case, shape: _Shape) -> float:
    """Bytes that attention moves for one token of one sequence.

    FP16: keys and values, read once. Q8, Q6 and Q4: packed elements and scales are read, unpacked to FP16 in a pair of
    tensors, and those are read (attn.py of the engine, forward; cache.py, get_kv_state): more than FP16, not less.
    Writing the token's own entry is left out. With xformers, SDPA and matmul keys and values that several heads share
    are first written once for each of them (attn.py, repeat_kv) and then read so.
    """
    tokens = min(case.max_seq_len, case.cache_tokens // case.batch_size)  # jobs may share a cache that gives each less
    elements = shape.layers * shape.kv_heads * shape.head_dim * tokens  # keys; and as many values
    fp16_bytes = 2 * elements * 2
    copied_bytes = 0.0
    if _copies_for_each_head(case) and shape.heads > shape.kv_heads:
        copied_bytes = 2 * fp16_bytes * shape.heads / shape.kv_heads  # written, then read
    if case.cache == "FP16":
        return fp16_bytes + copied_bytes
    engine = engine_of(case.engine)
    kind = engine.caches[case.cache]
    packed_bytes = elements * (kind.key_bits + kind.value_bits) / 8
    scale_bytes = 2 * shape.layers * shape.kv_heads * (shape.head_dim // _CACHE_GROUP) * tokens * 2
    if not engine.unpacks_cache:
        return packed_bytes + scale_bytes
    return packed_bytes + scale_bytes + 2 * fp16_bytes + copied_bytes  # the pair is written, then read


@lru_cache(_KEPT_MODELS)
def _read_shape(model: ModelSpec) -> _Shape | None:
    config = model.config
    if any(_lookup(config, key) is not None for key in _OTHER_LAYERS):
        return None
    hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    layers, vocab = _size(config, "num_hidden_layers"), _size(config, "vocab_size")
    intermediate = _size(config, "intermediate_size")
    experts = _size(config, "num_local_experts") or _size(config, "num_experts") or 1
    active_experts = 1
    if experts > 1:
        active_experts = _size(config, "num_experts_per_tok") or 0
        intermediate = _size(config, "moe_intermediate_size") or intermediate
    if not (hidden and heads and layers and vocab and intermediate and 0 < active_experts <= experts):
        return None
    architectures = config.get("architectures")
    return _Shape(
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=_size(config, "num_key_value_heads") or heads,
        head_dim=_size(config, "head_dim") or hidden // heads,
        vocab=vocab,
        experts=experts,
        active_experts=active_experts,
        mlp_matrices=2 if isinstance(architectures, list) and _UNGATED in architectures else 3,
    )


@lru_cache(_KEPT_MODELS)
def layers_and_experts(model: ModelSpec) -> tuple[int, int] | None:
    """How many layers a model has, and experts each of them (1 where none are chosen); None where it is not told."""
    config = model.config
    layers = _size(config, "num_hidden_layers") or _size(config, "n_layers") or _size(config, "n_layer")
    experts = _size(config, "num_local_experts") or _size(config, "num_experts") or 1
    return (layers, experts) if layers else None


def _lookup(config: dict[str, Any], key: str) -> Any:
    """A value of config.json or of its `text_config`, in the order in which the engine looks."""
    nested = config.get("text_config")
    value = config.get(key)
    return nested.get(key) if value is None and isinstance(nested, dict) else value


def _size(config: dict[str, Any], key: str) -> int | None:
    value = _lookup(config, key)
    return value if isinstance(value, int) and value > 0 else None
