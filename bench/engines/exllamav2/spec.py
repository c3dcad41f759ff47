"""All that the parent knows of ExLlamaV2 0.3."""

from __future__ import annotations

from bench.core.case import NATIVE
from bench.engines.base import CacheType, EngineSpec, Package, SimulatedSeconds, Weights
from bench.engines.exllamav2.earlier import more_after_loading_bytes
from bench.engines.exllamav2.frontends import FRONTENDS
from bench.engines.exllamav2.tabbyapi import TABBYAPI

SPEC = EngineSpec(
    name="exllamav2",
    title="ExLlamaV2",
    extension="exllamav2_ext",
    # exllamav2/cache.py, and cache.cu for Q6; quantised_caches.py says why they share a recording.
    caches={
        "FP16": CacheType(16, 16, "FP16"),
        "Q8": CacheType(8, 8, "Q6"),
        "Q6": CacheType(8, 4, "Q6"),
        "Q4": CacheType(4, 4, "Q6"),
    },
    caches_in_words="FP16, Q8, Q6, Q4",
    cache_synonyms={},
    attentions=("flash", "xformers", "sdpa", "matmul"),
    # Of packages, of transformers' attn_implementation, of PyTorch.
    attention_synonyms={
        **dict.fromkeys(("flash_attn", "flash_attn_2", "flash_attention", "flash_attention_2", "fa2"), "flash"),
        **dict.fromkeys(("torch_sdpa", "scaled_dot_product_attention"), "sdpa"),
        "eager": "matmul",
    },
    allocator=NATIVE,  # PyTorch's default
    least_bpw=2.0,
    most_bpw=8.0,
    head_bits=(2, 3, 4, 5, 6, 8),  # exllamav2/conversion/qparams.py, qparams_headoptions
    default_head_bits=6,  # exllamav2/conversion/convert_exl2.py, -hb
    has_max_attention_size=True,
    context_step=1,
    scenarios=("forward", "generator"),
    # generator/dynamic.py: it asserts at most 8, and has room for the logits of 8 with the token itself (max_q_size).
    default_draft_tokens=4,
    most_draft_tokens=7,
    job_spare_tokens=0,
    draft_models=True,
    servers={"tabbyapi": TABBYAPI},
    frontends=FRONTENDS,
    several_cards=True,
    makes_checkpoints=True,
    layout_note=(
        "bit widths laid out by vram-bench for the mean: what is told holds for that layout; a real checkpoint's holes "
        "differ (model=hub or model=local reads its headers)"
    ),
    # exllamav2/architecture.py, ExLlamaV2ArchParams; any other would be run as a Llama, with a warning.
    architectures=frozenset(
        {
            "Cohere2ForCausalLM",
            "CohereForCausalLM",
            "DbrxForCausalLM",
            "GPT2LMHeadModel",
            "GPTBigCodeForCausalLM",
            "Gemma2ForCausalLM",
            "Gemma3ForConditionalGeneration",
            "GemmaForCausalLM",
            "GemmoeForCausalLM",
            "Glm4ForCausalLM",
            "GraniteForCausalLM",
            "IndexForCausalLM",
            "InternLM2ForCausalLM",
            "LlamaForCausalLM",
            "LlavaForConditionalGeneration",
            "MiniCPMForCausalLM",
            "Mistral3ForConditionalGeneration",
            "MistralForCausalLM",
            "MixtralForCausalLM",
            "OrionForCausalLM",
            "Phi3ForCausalLM",
            "Qwen2ForCausalLM",
            "Qwen2VLForConditionalGeneration",
            "Qwen2_5_VLForConditionalGeneration",
            "Qwen3ForCausalLM",
            "Qwen3MoeForCausalLM",
            "Starcoder2ForCausalLM",
            "YiForCausalLM",
        }
    ),
    # Where ExLlamaV2Config.prepare looks, in its order: all of them at the top, then all of them in text_config.
    length_keys=("max_sequence_length", "model_max_length", "max_position_embeddings", "max_seq_len", "n_positions"),
    default_length=2048,
    # A position that was learned is a row of a table: there is none beyond (exllamav2/pos_embedding.py).
    learned_positions=frozenset({"GPT2LMHeadModel", "GPTBigCodeForCausalLM"}),
    weights=Weights(
        quantised="EXL2",
        plain_types=("F16", "BF16", "F32"),  # read as they are, and cast to FP16: exllamav2/stloader.py, convert_dtype
        in_words="ExLlamaV2 loads EXL2 weights, and unquantised ones of F16, BF16 or F32",
        why_not={
            "GPTQ": "ExLlamaV2 loads those of 4 bits, but may take memory for them beside PyTorch's allocator "
            "(act-order), which vram-bench does not see"
        },
    ),
    # The median over the ten EXL2 rows of at least 3B parameters in ExLlamaV2's README (373bcc1 of 2024-08-17, version
    # 0.1.8, RTX 3090 Ti and 4090), which is 0.706; 0.55 to 0.83 by row.
    decode_efficiency=0.71,
    unpacks_cache=True,  # exllamav2/attn.py, forward; cache.py, get_kv_state
    # What an engine prepares while it runs must be there before: here, CUDA graphs at the 205th call of a layer.
    warm_up_tokens=256,
    # Measured on two cores of a server, 2026.
    simulated_seconds=SimulatedSeconds(
        load_layer=0.013,
        load_unquantised_layer=0.045,
        load_expert=0.0007,
        chunk_layer={"flash": 0.0006, "xformers": 0.0007, "sdpa": 0.0009, "matmul": 0.0024},
        unquantised_chunk_layer=0.003,
        decode_layer=0.0005,
        expert=0.0022,
        repeated_expert=0.000011,
    ),
    oom_texts=(
        r"Insufficient VRAM for model and cache",  # ExLlamaV2.load_autosplit
        r"Insufficient space in device allocation",  # ExLlamaV2.load
    ),
    packages={
        "flash_attn": Package(
            "ExLlamaV2 by itself ends over it; cases here switch it off (EXLLAMA_NO_FLASH_ATTN=1). Install flash-attn "
            "2 for this torch, or uninstall it (flash-attn-4 alone has no version to read)"
        ),
        "xformers": Package(
            "ExLlamaV2 by itself ends over it; cases here switch it off (EXLLAMA_NO_XFORMERS=1). Install one for this "
            "torch, or uninstall it"
        ),
        "exllamav2_ext": Package("install the wheel of exllamav2 that is for this torch and Python", "measuring"),
    },
    more_after_loading_bytes=more_after_loading_bytes,
)
