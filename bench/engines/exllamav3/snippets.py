"""A setting as something to copy: exllamav3's Python and TabbyAPI's config.yml."""

from __future__ import annotations

from bench.engines.base import Chosen, Snippet, wanted_weights
from bench.engines.exllamav3.caches import CACHES


def snippets(chosen: Chosen) -> list[Snippet]:
    """The engine by itself, and the server that uses it."""
    return [
        Snippet("exllamav3", "python", exllamav3(chosen)),
        Snippet("TabbyAPI's config.yml", "yaml", tabbyapi(chosen)),
    ]


def exllamav3(chosen: Chosen) -> str:
    """Python for exllamav3 1.6, as the scenario does it (docs/exllamav3.md); `DIR` is for the reader to replace."""
    setting = chosen.setting
    bits = CACHES[setting["cache"]]
    is_plain = setting["cache"] == "FP16"
    layer = "CacheLayer_fp16" if is_plain else "CacheLayer_quant"
    quantised = "" if is_plain else f", k_bits={bits.key_bits}, v_bits={bits.value_bits}"
    tokens = f"max_num_tokens={chosen.max_seq_len * chosen.batch_size}, max_batch_size={chosen.batch_size}"
    chunk = f"max_chunk_size={setting['max_input_len'] or 2048}"
    return "\n".join(
        [
            f"from exllamav3 import Cache, {layer}, Config, Model",
            "",
            f'model = Model.from_config(Config.from_directory("DIR"))  # {wanted_weights(chosen)}',
            f"cache = Cache(model, {tokens}, layer_type={layer}{quantised})",
            f"model.load({chunk})" if setting["lazy"] else 'model.load(device="cuda:0")',
            f"# Generator(model, cache, tokenizer, max_batch_size={chosen.batch_size}, {chunk})",
        ]
    )


def tabbyapi(chosen: Chosen) -> str:
    """Lines for config.yml. The keys are those of commit e632af4 (2026-08-13).

    On one GPU it loads by autosplit, with 96 MiB in reserve whatever `autosplit_reserve` says; the engine's own
    default, which rows are run with, is 512 MiB.
    """
    setting = chosen.setting
    bits = CACHES[setting["cache"]]
    mode = "FP16" if setting["cache"] == "FP16" else f"{bits.key_bits},{bits.value_bits}"
    way = "as the rows" if setting["lazy"] else "unlike the rows"
    remarks = [f"on one GPU it loads by autosplit, {way}, with 96 MiB in reserve where the engine has 512"]
    return "\n".join(
        [
            *(f"# {remark}" for remark in remarks),
            "model:",
            f"  model_name: DIR  # {wanted_weights(chosen)}, below model_dir",
            "  backend: exllamav3",
            f"  max_seq_len: {chosen.max_seq_len}",
            f"  cache_size: {chosen.max_seq_len * chosen.batch_size}",
            f"  cache_mode: {mode}",
            *([] if setting["max_input_len"] is None else [f"  chunk_size: {setting['max_input_len']}"]),
            f"  max_batch_size: {chosen.batch_size}",
        ]
    )
