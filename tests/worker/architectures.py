"""A small model of every architecture that exllamav2 knows: what its config.json says beside the usual."""

from __future__ import annotations

from typing import Any

DENSE = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "norm_epsilon": 1e-5,
    "rope_theta": 1e4,
    "pad_token_id": 0,
}
EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2}
_PIXTRAL = {
    "model_type": "pixtral",
    "head_dim": 64,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "patch_size": 16,
    "rope_theta": 10000.0,
}
_SIGLIP = {
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "hidden_size": 1152,
    "patch_size": 14,
}
_QWEN_VISION = {
    "embed_dim": 1280,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "mlp_ratio": 4,
    "num_heads": 16,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "patch_size": 14,
    "depth": 32,
    "hidden_act": "silu",
    "fullatt_block_indexes": [7, 15],
    "window_size": 112,
}
_GPT = {"n_embd": 1024, "n_head": 8, "n_layer": 2, "n_inner": 4096, "n_positions": 8192}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {},
    "MistralForCausalLM": {},
    "MixtralForCausalLM": EXPERTS,
    "LlavaForConditionalGeneration": {"vision_config": _PIXTRAL, "vision_feature_layer": -1},
    "Mistral3ForConditionalGeneration": {
        "vision_config": _PIXTRAL,
        "vision_feature_layer": -1,
        "spatial_merge_size": 2,
    },
    "YiForCausalLM": {},
    "OrionForCausalLM": {},
    "Qwen2ForCausalLM": {},
    "Qwen3ForCausalLM": {},
    "Qwen3MoeForCausalLM": {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 768},
    "Qwen2VLForConditionalGeneration": {"vision_config": _QWEN_VISION},
    "Qwen2_5_VLForConditionalGeneration": {"vision_config": _QWEN_VISION},
    "GemmaForCausalLM": {},
    "Gemma2ForCausalLM": {
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 256,
    },
    "Gemma3ForConditionalGeneration": {"vision_config": _SIGLIP, "mm_tokens_per_image": 256, "sliding_window": 1024},
    "Starcoder2ForCausalLM": {},
    "GemmoeForCausalLM": {"num_experts": 8, "num_experts_per_tok": 2},
    "CohereForCausalLM": {"logit_scale": 0.0625},
    "Cohere2ForCausalLM": {"logit_scale": 0.0625, "sliding_window": 4096, "sliding_window_pattern": 4},
    "DbrxForCausalLM": {
        "ffn_config": {"ffn_hidden_size": 2816, "moe_num_experts": 8, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 4, "rope_theta": 1e4},
    },
    "Phi3ForCausalLM": {},
    "GPTBigCodeForCausalLM": _GPT,
    "GPT2LMHeadModel": _GPT,
    "MiniCPMForCausalLM": {"scale_emb": 12, "dim_model_base": 256, "scale_depth": 1.4},
    "InternLM2ForCausalLM": {},
    "IndexForCausalLM": {},
    "GraniteForCausalLM": {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22},
    "Glm4ForCausalLM": {"partial_rotary_factor": 0.5},
}

# More of a small model with experts: four of them, two for each token, by whatever key an architecture has.
FOUR_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "num_local_experts": 4}
