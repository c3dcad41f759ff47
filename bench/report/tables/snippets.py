"""A recommendation as something to copy: ExLlamaV2's Python, TabbyAPI's config.yml, and the command that checks it."""

from __future__ import annotations

import shlex

from bench.analysis.recommend import Recommendation
from bench.core.case import MAX_ATTENTION_SIZE, PAGE
from bench.core.columns import SETTING, WEIGHTS, SettingColumns, label, usual
from bench.core.identity import key_of

# What ExLlamaV2 must be told not to use, so that it uses the one that was asked for.
_SWITCHES = {
    "flash": (),
    "xformers": ("no_flash_attn",),
    "sdpa": ("no_flash_attn", "no_xformers"),
    "matmul": ("no_flash_attn", "no_xformers", "no_sdpa"),
}

# Settings that `check_command` names in any case, or that follow from the weights in DIR.
_ALWAYS = ("cache", "lazy", *WEIGHTS)


def exllamav2(answer: Recommendation) -> str:
    """Python for ExLlamaV2 0.3, as the scenario does it (docs/architecture.md); `DIR` is for the reader to replace."""
    setting = _setting(answer)
    cache = "ExLlamaV2Cache" if setting["cache"] == "FP16" else f"ExLlamaV2Cache_{setting['cache']}"
    chunk = setting["max_input_len"]
    sizes = f"batch_size={answer.batch_size or 1}, max_seq_len={answer.max_seq_len}"
    lines = [
        f"from exllamav2 import ExLlamaV2, {cache}, ExLlamaV2Config",
        "",
        f'config = ExLlamaV2Config("DIR")  # {weights(answer)}',
        f"config.max_seq_len = {answer.max_seq_len}",
        f"config.max_batch_size = {answer.batch_size or 1}",
        *([] if chunk is None else [f"config.max_input_len = {chunk}"]),
        *(_other("config.max_attention_size = {}", setting["max_attention_size"])),
        *(f"config.{switch} = True" for switch in _SWITCHES.get(setting["attention_requested"] or "auto", ())),
        "model = ExLlamaV2(config)",
    ]
    if setting["lazy"]:
        return "\n".join([*lines, f"cache = {cache}(model, {sizes}, lazy=True)", "model.load_autosplit(cache)"])
    return "\n".join([*lines, "model.load()", f"cache = {cache}(model, {sizes})"])


def tabbyapi(answer: Recommendation) -> str:
    """Lines for config.yml. The keys are those of commit 79126f9 (2026-06-27), one of the last TabbyAPI with ExLlamaV2.

    Its cache has whole pages. On one GPU it loads plainly and then makes the cache, whatever `gpu_split_auto` says. By
    default it switches PyTorch to CUDA's own allocator, which no row here was run with.
    """
    setting = _setting(answer)
    whole = (answer.max_seq_len or 0) // PAGE * PAGE
    remarks = ["TabbyAPI until June 2026: later versions have no ExLlamaV2 backend"]
    remarks += ["on one GPU it loads plainly, as with lazy=false"] if setting["lazy"] else []
    if setting["attention_requested"] not in (None, "auto", "flash"):
        remarks.append(f"it has no key for attention={setting['attention_requested']}")
    chunk = setting["max_input_len"]
    if chunk is not None and (setting["max_attention_size"] or MAX_ATTENTION_SIZE) != chunk**2:
        remarks.append("it also sets max_attention_size to chunk_size squared, unlike the rows")
    return "\n".join(
        [
            *(f"# {remark}" for remark in remarks),
            "model:",
            f"  model_name: DIR  # {weights(answer)}, below model_dir",
            "  backend: exllamav2",
            f"  max_seq_len: {whole}",
            f"  cache_size: {whole * (answer.batch_size or 1)}",
            f"  cache_mode: {setting['cache']}",
            *([] if chunk is None else [f"  chunk_size: {chunk}"]),
            f"  max_batch_size: {answer.batch_size or 1}",
            "memory:",
            "  cuda_malloc_async: false",
        ]
    )


def check_command(answer: Recommendation) -> str:
    """What measures the same setting on the reader's own card; the bits per weight are those of the weights in DIR."""
    setting = _setting(answer)
    keys: dict[str, object] = {
        "model": "local",
        "model.path": "DIR",
        "device": "cuda",
        "cache": setting["cache"],
        "lazy": str(setting["lazy"]).lower(),
        "max_seq_len": answer.max_seq_len,
    }
    asked = zip(SETTING, key_of(setting, SETTING), strict=True)
    keys |= {label(name): value for name, value in asked if name not in _ALWAYS and value not in (None, usual(name))}
    return shlex.join(["vram-bench", "sweep", *(f"{name}={value}" for name, value in keys.items())])


def _setting(answer: Recommendation) -> SettingColumns:
    """What is recommended: nothing else can be copied."""
    assert answer.setting is not None
    return answer.setting


def _other(line: str, size: int | None) -> list[str]:
    """A line for a `max_attention_size` that is not the engine's own."""
    return [] if size in (None, MAX_ATTENTION_SIZE) else [line.format(size)]


def weights(answer: Recommendation) -> str:
    """Which weights a reader should have in DIR."""
    setting = _setting(answer)
    head = "" if setting["head_bits"] is None else f", head_bits {setting['head_bits']}"
    return f"{answer.identity['model']} at {setting['bpw']:g} bpw{head}"
