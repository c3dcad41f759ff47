"""The vision tower beside a model: loaded as servers do it, and the tensors of a checkpoint that has one.

ExLlamaV2 0.3.2 has those of Pixtral (Llava and Mistral 3), Qwen2-VL, Qwen2.5-VL and Gemma 3 (vlm/vision_tower.py).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import torch

from bench.synth.layout import SMALL_DEVIATION, Content, Tensor
from bench.worker.interfaces.engine import Tell, Unsupported


def require_tower(config: Any) -> None:
    """Raises `Unsupported` where an `ExLlamaV2Config` has found no weights of a tower: the engine would go on."""
    names = [f"{config.arch.vt_prefix}{config.arch.vt.keys['patch_conv']}{suffix}" for suffix in (".weight", "")]
    if not any(name in config.tensor_file_map for name in names):
        raise Unsupported(
            f"vision=true: the weights have no vision tower ({names[0]}); leave vision out, or give weights with it"
        )


def load_tower(config: Any, tell: Tell | None) -> Any:
    """An `ExLlamaV2VisionTower` with its weights on the first card; of its RoPE all is on the host."""
    tower = importlib.import_module("exllamav2.vlm.vision_tower").ExLlamaV2VisionTower(config)
    tower.load(callback=tell)
    return tower


def tower_tensors(tower: Any) -> list[torch.Tensor]:
    """Its weights and biases."""
    found: list[Any] = []
    for module in tower.modules:
        for part in [module, *module.submodules]:
            for holder in (part, *(getattr(part, name, None) for name in ("conv", "linear", "embedding"))):
                found += [getattr(holder, name, None) for name in ("weight", "bias")]
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]


def tower_layout(config: Any, read: dict[str, Any]) -> Iterator[Tensor]:
    """Every tensor of the tower and its projector, from an `ExLlamaV2Config` and the config.json (`read`) it has read.

    The shapes are those of the published models, as their classes in transformers make them. The engine's own module
    graph does not tell them: it takes a projector's matrices as they are.
    """
    kind = config.vision_model_type
    if kind == "siglip_vision_model":
        shapes = _siglip(config, read)
    elif kind == "pixtral":
        shapes = _pixtral(config)
    else:
        shapes = _qwen(config)
    for name, shape in shapes:
        yield Tensor(name, "F16", shape, Content.NORMAL, deviation=SMALL_DEVIATION)


_Shapes = Iterator[tuple[str, tuple[int, ...]]]


def _linear(name: str, outputs: int, inputs: int, has_bias: bool) -> _Shapes:
    yield f"{name}.weight", (outputs, inputs)
    if has_bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, size: int, has_bias: bool) -> _Shapes:
    yield f"{name}.weight", (size,)
    if has_bias:
        yield f"{name}.bias", (size,)


def _siglip(config: Any, read: dict[str, Any]) -> _Shapes:
    prefix, size, inner = config.arch.vt_prefix, config.vision_hidden_size, config.vision_intermediate_size
    patch = config.vision_patch_size["width"]
    image_size = read["vision_config"].get("image_size", _SIGLIP_IMAGE_SIZE)
    yield f"{prefix}embeddings.patch_embedding.weight", (size, config.vision_num_channels, patch, patch)
    yield f"{prefix}embeddings.patch_embedding.bias", (size,)
    yield f"{prefix}embeddings.position_embedding.weight", ((image_size // patch) ** 2, size)
    for layer in range(config.vision_num_layers):
        key = f"{prefix}encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{key}.self_attn.{name}", size, size, True)
        for name in ("layer_norm1", "layer_norm2"):
            yield from _norm(f"{key}.{name}", size, True)
        yield from _linear(f"{key}.mlp.fc1", inner, size, True)
        yield from _linear(f"{key}.mlp.fc2", size, inner, True)
    yield from _norm(f"{prefix}post_layernorm", size, True)
    yield f"{config.arch.mmp_prefix}mm_input_projection_weight", (size, config.hidden_size)
    yield from _norm(f"{config.arch.mmp_prefix}mm_soft_emb_norm", size, False)


_SIGLIP_IMAGE_SIZE = 896  # of all published Gemma 3


def _pixtral(config: Any) -> _Shapes:
    prefix, size, inner = config.arch.vt_prefix, config.vision_hidden_size, config.vision_intermediate_size
    patch, heads = config.vision_patch_size["width"], config.vision_num_attention_heads * config.vision_head_dim
    yield f"{prefix}patch_conv.weight", (size, config.vision_num_channels, patch, patch)
    yield from _norm(f"{prefix}ln_pre", size, False)
    for layer in range(config.vision_num_layers):
        key = f"{prefix}transformer.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj"):
            yield from _linear(f"{key}.attention.{name}", heads, size, False)
        yield from _linear(f"{key}.attention.o_proj", size, heads, False)
        for name in ("gate_proj", "up_proj"):
            yield from _linear(f"{key}.feed_forward.{name}", inner, size, False)
        yield from _linear(f"{key}.feed_forward.down_proj", size, inner, False)
        for name in ("attention_norm", "ffn_norm"):
            yield from _norm(f"{key}.{name}", size, False)
    projector, has_bias = config.arch.mmp_prefix, config.multimodal_projector_bias
    if config.arch.mmp.mlp_patch_merger:
        yield from _norm(f"{projector}norm", size, False)
        merged = size * config.vision_spatial_merge_size**2
        yield from _linear(f"{projector}patch_merger.merging_layer", size, merged, False)
    yield from _linear(f"{projector}linear_1", config.hidden_size, size, has_bias)
    yield from _linear(f"{projector}linear_2", config.hidden_size, config.hidden_size, has_bias)


def _qwen(config: Any) -> _Shapes:
    prefix, size, inner = config.arch.vt_prefix, config.vision_hidden_size, config.vision_intermediate_size
    is_first = config.vision_model_type == "qwen2"  # LayerNorm and two matrices, then RMSNorm and three
    patch = config.vision_patch_size["width"]
    conv = (size, config.vision_num_channels, config.vision_temporal_patch_size, patch, patch)
    yield f"{prefix}patch_embed.proj.weight", conv
    for layer in range(config.vision_num_layers):
        key = f"{prefix}blocks.{layer}"
        yield from _linear(f"{key}.attn.qkv", 3 * size, size, True)
        yield from _linear(f"{key}.attn.proj", size, size, True)
        for name in ("norm1", "norm2"):
            yield from _norm(f"{key}.{name}", size, is_first)
        ups, down = (("fc1",), "fc2") if is_first else (("gate_proj", "up_proj"), "down_proj")
        for name in ups:
            yield from _linear(f"{key}.mlp.{name}", inner, size, True)
        yield from _linear(f"{key}.mlp.{down}", size, inner, True)
    merged = size * config.vision_spatial_merge_size**2
    yield from _norm(f"{config.arch.mmp_prefix}ln_q", size, is_first)
    yield from _linear(f"{config.arch.mmp_prefix}mlp.0", merged, merged, True)
    yield from _linear(f"{config.arch.mmp_prefix}mlp.2", config.hidden_size, merged, True)
