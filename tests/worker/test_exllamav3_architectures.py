"""exllamav3's own code for models of each kind, with keys and values of the size that their definition says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.core.case import Case
from bench.synth.layout import Content, Tensor
from bench.synth.shards import write_shard
from bench.tensor_files import read_header
from bench.worker import cards
from bench.worker.engines.exllamav3.engine import EXLLAMAV3
from bench.worker.engines.exllamav3.readable import open_model
from bench.worker.interfaces.engine import Unsupported
from tests.worker.conftest import Run, catalogue_case, made_up_case

TOKENS, LAYERS, KV_HEADS, HEAD_DIM = 2304, 4, 4, 64
_FP16 = 4 * KV_HEADS * HEAD_DIM  # bytes of a token's key and value in a layer
_BASE = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 8,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "vocab_size": 1024,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
SHARED_EXPERTS = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 256,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": True,
}
_LATENT = {
    "num_key_value_heads": 8,
    "q_lora_rank": 256,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
_LINEAR = {
    "full_attention_interval": 4,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 256,
    "shared_expert_intermediate_size": 256,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "partial_rotary_factor": 0.25,
    "norm_topk_prob": True,
    "head_dim": 128,
}
_RINGS = {
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": 128,
    "attention_bias": True,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "original_max_position_embeddings": 4096,
    },
    "swiglu_limit": 7.0,
}
# A model of each kind that has something else than keys and values in its cache, or beside them.
KINDS: dict[str, dict[str, Any]] = {
    architecture: {**_BASE, "architectures": [architecture], **more}
    for architecture, more in (
        ("GptOssForCausalLM", _RINGS),
        ("Qwen3NextForCausalLM", _LINEAR),
        ("DeepseekV3ForCausalLM", {**SHARED_EXPERTS, **_LATENT}),
    )
}
_CAPS = {"hidden_act": "gelu_pytorch_tanh", "sliding_window": 4096, "attn_logit_softcapping": 50.0}


def _config(architecture: str, more: dict[str, Any]) -> dict[str, Any]:
    return {**_BASE, "architectures": [architecture], **more}


def _known(model: str) -> dict[str, Any]:
    """The config.json of a model of the catalogue."""
    return dict(catalogue_case("engine=exllamav3", f"model={model}").model.config)


@pytest.mark.parametrize(
    ("architecture", "more", "cache", "cache_bytes"),
    [
        ("Gemma2ForCausalLM", _CAPS, "FP16", LAYERS * _FP16 * TOKENS),  # soft caps, and windows in a whole cache
        # A quantised side has an FP16 scale for every 32 values.
        ("Glm4MoeForCausalLM", SHARED_EXPERTS, "Q4", LAYERS * _FP16 * 9 // 32 * TOKENS),
        # Half of the layers keep a ring of 128 + 512 tokens in whole pages: 768.
        ("GptOssForCausalLM", _RINGS, "FP16", 2 * _FP16 * (TOKENS + 768)),
        ("DeepseekV3ForCausalLM", {**SHARED_EXPERTS, **_LATENT}, "FP16", LAYERS * 2 * (512 + 64) * TOKENS),
    ],
)
def test_a_model_of_each_kind_runs_with_a_cache_of_its_size(
    architecture: str, more: dict[str, Any], cache: str, cache_bytes: int, run: Callable[[Case], Run], layouts: Any
) -> None:
    case = made_up_case(_config(architecture, more), engine="exllamav3", cache=cache, max_seq_len=TOKENS)
    done = run(case)
    assert done.parts["cache_bytes"] == cache_bytes
    sizes = read_header(EXLLAMAV3.layout_of(case, layouts) / "model.safetensors")
    on_card = sum(entry.size_bytes for name, entry in sizes.items() if "embed_tokens" not in name)
    weights_bytes = done.parts["weights_bytes"]
    assert weights_bytes is not None
    assert on_card <= weights_bytes < on_card + (128 << 20) + (8 << 20)  # the tail of a slab, and tables of pointers


@pytest.mark.parametrize(("architecture", "more"), [("GptOssForCausalLM", _RINGS), ("Qwen3NextForCausalLM", _LINEAR)])
def test_what_a_real_card_is_told_of_states_and_rings_is_all_of_them(
    architecture: str, more: dict[str, Any], layouts: Path
) -> None:
    """There the parts are those of the tensors that a session holds; here it is also known who asked for them."""
    case = made_up_case(_config(architecture, more), engine="exllamav3", max_seq_len=TOKENS)
    with cards.open_machine(case) as machine:
        session = EXLLAMAV3.session(case, machine)
        session.open(machine.model_dir(case, layouts))
        session.build()
        session.load()
        sizes = [tensor.numel() * tensor.element_size() for tensor in session.resident_tensors()["cache"]]
        held = sum(-(-size // 512) * 512 for size in sizes)  # as PyTorch hands it out
        assert held == machine.cards[0].parts_at_peak(dict)["cache_bytes"]


def test_states_of_linear_attention_do_not_grow_with_the_context(run: Callable[[Case], Run]) -> None:
    config = _config("Qwen3NextForCausalLM", _LINEAR)
    held = [
        run(made_up_case(config, engine="exllamav3", max_seq_len=tokens)).parts["cache_bytes"] or 0
        for tokens in (TOKENS, 2 * TOKENS)
    ]
    one_layer = 4 * KV_HEADS * 128
    assert held[1] - held[0] == one_layer * TOKENS
    assert held[0] > one_layer * TOKENS


def test_what_the_engine_or_its_stand_in_does_not_know_is_unsupported_and_never_guessed() -> None:
    cards.preload("simulated", "exllamav3")
    with pytest.raises(Unsupported, match="does not know the architecture"):
        EXLLAMAV3.require_readable(_config("Qwen9ForCausalLM", {}))
    with pytest.raises(Unsupported, match="does not know the architecture SiglipVisionModel"):
        EXLLAMAV3.require_readable(_config("SiglipVisionModel", {}))  # vision alone
    in_groups = {**SHARED_EXPERTS, **_LATENT, "n_group": 8, "topk_group": 4}  # as DeepSeek-V3 has them
    with pytest.raises(Unsupported, match=r"Group-limited expert routing \(n_group = 8, topk_group = 4\)"):
        EXLLAMAV3.require_readable(_config("DeepseekV3ForCausalLM", in_groups))
    with pytest.raises(Unsupported, match="per-layer inputs are not implemented yet"):
        EXLLAMAV3.require_readable(_known("gemma_4_e4b"))
    import exllamav3_ext

    with pytest.raises(Unsupported, match="dsv4_compress"):
        exllamav3_ext.dsv4_compress()


def test_what_the_engine_reads_beside_config_json_is_made_or_told_by_its_name(tmp_path: Path) -> None:
    """Gemma 4 has its image processor in processor_config.json."""
    cards.preload("simulated", "exllamav3")
    config = _known("gemma_4_31b")
    EXLLAMAV3.require_readable(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_shard(tmp_path / "model.safetensors", [Tensor("none", "F16", (1,), Content.ZEROS)], lambda _: None, {})
    with pytest.raises(Unsupported, match=r"reads processor_config\.json beside config\.json of Gemma4"):
        open_model(tmp_path, config)
