"""A setting as something to copy: exllamav3's Python and TabbyAPI's config.yml."""

from __future__ import annotations

from bench.core.case import DEFAULT_SCENARIO
from bench.engines.base import Chosen, Snippet, wanted_weights
from bench.engines.exllamav3.caches import CACHES
from bench.engines.exllamav3.served import NGRAM_TOKENS


def snippets(chosen: Chosen) -> list[Snippet]:
    """The engine by itself, and the server that uses it."""
    return [
        Snippet("exllamav3", "python", exllamav3(chosen)),
        Snippet("TabbyAPI's config.yml", "yaml", tabbyapi(chosen)),
    ]


def exllamav3(chosen: Chosen) -> str:
    """Python for exllamav3 1.6, as the scenario does it (docs/scenarios.md); `DIR` is for the reader to replace."""
    setting = chosen.setting
    bits = CACHES[setting["cache"]]
    is_plain = setting["cache"] == "FP16"
    layer = "CacheLayer_fp16" if is_plain else "CacheLayer_quant"
    quantised = "" if is_plain else f", k_bits={bits.key_bits}, v_bits={bits.value_bits}"
    more = {"max_batch_size": _most_jobs(chosen), "max_history": setting["num_draft_tokens"]}
    tokens = ", ".join([f"max_num_tokens={_cache_tokens(chosen)}", *_keys(more)])
    chunk = f"max_chunk_size={setting['max_input_len'] or 2048}"
    return "\n".join(
        [
            f"from exllamav3 import Cache, {layer}, Config, Model",
            "",
            f'model = Model.from_config(Config.from_directory("DIR"))  # {wanted_weights(chosen)}',
            f"cache = Cache(model, {tokens}, layer_type={layer}{quantised})",
            f"model.load({chunk})" if setting["lazy"] else 'model.load(device="cuda:0")',
            *_generator(chosen, chunk),
        ]
    )


def _is_served(chosen: Chosen) -> bool:
    return chosen.setting["scenario"] not in (None, DEFAULT_SCENARIO)


def _cache_tokens(chosen: Chosen) -> int:
    """The tokens of the cache, which a generator's jobs may share."""
    return chosen.setting["cache_size"] or chosen.max_seq_len * chosen.batch_size


def _most_jobs(chosen: Chosen) -> int | None:
    """How many sequences or jobs there are slots for; None where that is the engine's default."""
    return chosen.setting["max_batch_size"] if _is_served(chosen) else chosen.batch_size


def _keys(told: dict[str, int | None]) -> list[str]:
    return [f"{name}={value}" for name, value in told.items() if value is not None]


def _generator(chosen: Chosen, chunk: str) -> list[str]:
    """The lines after a model and its cache are there."""
    if not _is_served(chosen):
        return [f"# Generator(model, cache, tokenizer, max_batch_size={chosen.batch_size}, {chunk})"]
    setting = chosen.setting
    ngram = {} if setting["draft"] is None else {"ngram_match_min": NGRAM_TOKENS}
    told = {"max_batch_size": setting["max_batch_size"], **ngram, "num_draft_tokens": setting["num_draft_tokens"]}
    keys = ", ".join(["model, cache, Tokenizer.from_config(model.config)", chunk, *_keys(told)])
    return [
        "",
        "from exllamav3 import Generator, Tokenizer",
        "",
        f"generator = Generator({keys})",
        f"# for {chosen.batch_size} jobs of up to {chosen.max_seq_len} tokens, each with a max_new_tokens",
    ]


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
    most_jobs = _most_jobs(chosen) or chosen.batch_size
    if _is_served(chosen) and setting["max_batch_size"] is None:
        remarks.append("the rows have the engine's default of max_batch_size: of states and windows 16 slots")
    return "\n".join(
        [
            *(f"# {remark}" for remark in remarks),
            "model:",
            f"  model_name: DIR  # {wanted_weights(chosen)}, below model_dir",
            "  backend: exllamav3",
            f"  max_seq_len: {chosen.max_seq_len}",
            f"  cache_size: {_cache_tokens(chosen)}",
            f"  cache_mode: {mode}",
            *([] if setting["max_input_len"] is None else [f"  chunk_size: {setting['max_input_len']}"]),
            f"  max_batch_size: {most_jobs}",
            *_drafts(chosen),
        ]
    )


def _drafts(chosen: Chosen) -> list[str]:
    """TabbyAPI's keys for what proposes tokens."""
    if chosen.setting["draft"] is None:
        return []
    keys = [f"draft_num_tokens: {chosen.setting['num_draft_tokens']}", f"ngram_match_min: {NGRAM_TOKENS}"]
    return ["draft_model:", "  draft_mode: ngram", *(f"  {key}" for key in keys)]
