"""A setting as something to copy: ExLlamaV2's Python and TabbyAPI's config.yml."""

from __future__ import annotations

from bench.core.case import DEFAULT_SCENARIO, EXPANDABLE, MAX_ATTENTION_SIZE, NATIVE, PAGE
from bench.core.split import Split, SplitBy
from bench.engines.base import Chosen, Snippet, wanted_weights
from bench.engines.exllamav2.spec import SPEC
from bench.engines.exllamav2.tabbyapi import MAX_OUTPUT_LEN, TABBYAPI

# What ExLlamaV2 must be told not to use, so that it uses the one that was asked for.
_SWITCHES = {
    "flash": (),
    "xformers": ("no_flash_attn",),
    "sdpa": ("no_flash_attn", "no_xformers"),
    "matmul": ("no_flash_attn", "no_xformers", "no_sdpa"),
}

_SET_ALLOCATOR = {
    EXPANDABLE: ("import os", 'os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"  # before torch'),
}
_DEFAULT_RESERVE_MIB = [192, 64]  # the engine's own on its first card and on others (exllamav2/model.py:551)


def snippets(chosen: Chosen) -> list[Snippet]:
    """The engine by itself, and the server that used it."""
    return [
        Snippet("ExLlamaV2", "python", exllamav2(chosen)),
        Snippet("TabbyAPI's config.yml", "yaml", tabbyapi(chosen)),
    ]


def exllamav2(chosen: Chosen) -> str:
    """Python for ExLlamaV2 0.3, as the scenario does it (docs/scenarios.md); `DIR` is for the reader to replace."""
    lines = [_loaded(chosen), *(_tried(chosen) if chosen.setting["load_as"] else [])]
    return "\n".join([*lines, *(_generator(chosen) if _is_served(chosen) else [])])


def _tried(chosen: Chosen) -> list[str]:
    """What a server does when the model and its cache are there."""
    return [
        "import torch",
        "model.forward(torch.zeros((1, config.max_input_len), dtype=torch.long), cache, preprocess_only=True)",
        "# and torch.cuda.empty_cache() once the generator is made",
    ]


def _is_served(chosen: Chosen) -> bool:
    return chosen.setting["scenario"] not in (None, DEFAULT_SCENARIO)


def _cache_tokens(chosen: Chosen, each: int) -> int:
    """The tokens of the cache that a generator's jobs share, of `each` where no other size was asked for."""
    return chosen.setting["cache_size"] or each * chosen.batch_size


def _generator(chosen: Chosen) -> list[str]:
    """The lines after a model and its cache are there."""
    setting = chosen.setting
    is_model = setting["draft_model"] is not None
    told = {
        "draft_model": "draft_model" if is_model else None,
        "draft_cache": "draft_cache" if is_model else None,
        "max_batch_size": setting["max_batch_size"],
        "use_ngram_draft": True if setting["draft"] == "ngram" else None,
        "num_draft_tokens": setting["num_draft_tokens"],
        "paged": False if setting["attention_requested"] not in (None, "auto", "flash") else None,
    }
    keys = "".join(f", {name}={value}" for name, value in told.items() if value is not None)
    return [
        "",
        "from exllamav2 import ExLlamaV2Tokenizer",
        "from exllamav2.generator import ExLlamaV2DynamicGenerator",
        "",
        f"generator = ExLlamaV2DynamicGenerator(model, cache, ExLlamaV2Tokenizer(config){keys})",
        f"# for {chosen.batch_size} jobs of up to {chosen.max_seq_len} tokens",
    ]


def _loaded(chosen: Chosen) -> str:
    """The lines that load the model and make its cache; for a generator the cache has one sequence."""
    setting = chosen.setting
    cache = _class_of(setting["cache"])
    sequences, tokens = chosen.batch_size, chosen.max_seq_len
    if _is_served(chosen):
        sequences, tokens = 1, _cache_tokens(chosen, chosen.max_seq_len)
    sizes = f"batch_size={sequences}, max_seq_len={tokens}"
    caches = [cache, *([] if setting["draft_cache"] is None else [_class_of(setting["draft_cache"])])]
    names = [*dict.fromkeys(caches), "ExLlamaV2Config", *(["ExLlamaV2VisionTower"] if setting["vision"] else [])]
    imported = f"from exllamav2 import ExLlamaV2, {', '.join(names)}"
    lines = [
        *_SET_ALLOCATOR.get(setting["allocator"] or NATIVE, ()),
        imported,
        "",
        *_draft(chosen),
        f'config = ExLlamaV2Config("DIR")  # {wanted_weights(chosen)}',
        *_configured(chosen, "config", sequences),
        *([f"config.max_output_len = {MAX_OUTPUT_LEN}"] if setting["load_as"] else []),
        *(["tower = ExLlamaV2VisionTower(config)", "tower.load()"] if setting["vision"] else []),
        "model = ExLlamaV2(config)",
    ]
    split = None if setting["split"] is None else Split.parse(setting["split"])
    if setting["lazy"]:
        reserve = None if split is None else split.reserve_bytes
        if setting["load_as"] and reserve is None:
            reserve = TABBYAPI.reserves(1)
        told = "" if reserve is None else f", reserve_vram={list(reserve)}"
        told += ", last_id_only=True" if setting["load_as"] else ""
        return "\n".join([*lines, f"cache = {cache}(model, {sizes}, lazy=True)", f"model.load_autosplit(cache{told})"])
    gib = None if split is None or split.gpu_split_gib is None else list(split.gpu_split_gib)
    if split is None or split.by is SplitBy.GPU_SPLIT:
        return "\n".join([*lines, f"model.load({gib or ''})", f"cache = {cache}(model, {sizes})"])
    first = "" if gib is None else f"{gib}, "
    lines[lines.index(imported)] = imported.replace(cache, f"{cache}, ExLlamaV2Cache_TP", 1)
    return "\n".join(
        [
            *lines,
            f"model.load_tp({first}expect_cache_tokens={sequences * tokens}, expect_cache_base={cache})",
            f"cache = ExLlamaV2Cache_TP(model, {sizes}, base={cache})",
        ]
    )


def _class_of(cache: str) -> str:
    return "ExLlamaV2Cache" if cache == "FP16" else f"ExLlamaV2Cache_{cache}"


def _configured(chosen: Chosen, config: str, sequences: int) -> list[str]:
    """The lines that a model and its draft model have in common."""
    setting = chosen.setting
    return [
        f"{config}.max_seq_len = {chosen.max_seq_len}",
        f"{config}.max_batch_size = {sequences}",
        *([] if setting["max_input_len"] is None else [f"{config}.max_input_len = {setting['max_input_len']}"]),
        *(_other(f"{config}.max_attention_size = {{}}", setting["max_attention_size"])),
        *(f"{config}.{switch} = True" for switch in _SWITCHES.get(setting["attention_requested"] or "auto", ())),
    ]


def _draft(chosen: Chosen) -> list[str]:
    """The lines that load a draft model, which comes first, and make its cache."""
    setting = chosen.setting
    if setting["draft_model"] is None:
        return []
    made = f"{_class_of(str(setting['draft_cache']))}(draft_model, batch_size=1"
    made += f", max_seq_len={_cache_tokens(chosen, chosen.max_seq_len)}"
    loaded = ["draft_model.load()", f"draft_cache = {made})"]
    if setting["lazy"]:
        loaded = [f"draft_cache = {made}, lazy=True)", "draft_model.load_autosplit(draft_cache)"]
    return [
        f'draft_config = ExLlamaV2Config("DRAFT_DIR")  # {_wanted_draft(chosen)}',
        *_configured(chosen, "draft_config", 1),
        "draft_model = ExLlamaV2(draft_config)",
        *loaded,
    ]


def _wanted_draft(chosen: Chosen) -> str:
    return f"{chosen.setting['draft_model']} at {chosen.setting['draft_bpw']:g} bpw"


def tabbyapi(chosen: Chosen) -> str:
    """Lines for config.yml. The keys are those of commit 79126f9 (2026-06-27), one of the last TabbyAPI with ExLlamaV2.

    Its cache has whole pages. On one GPU it loads plainly and then makes the cache, whatever `gpu_split_auto` says. By
    default it switches PyTorch to CUDA's own allocator, which no row here was run with. Rows of `load=tabbyapi` are as
    it loads; of others it is said in what it differs.
    """
    setting = chosen.setting
    whole = chosen.max_seq_len // PAGE * PAGE
    remarks = ["TabbyAPI until June 2026: later versions have no ExLlamaV2 backend"]
    split = None if setting["split"] is None else Split.parse(setting["split"])
    remarks += ["on one GPU it loads plainly, as with lazy=false"] if setting["lazy"] and split is None else []
    if not setting["load_as"]:
        remarks.append(
            "it tries a chunk and trims PyTorch's memory before it serves, unlike the rows: load=tabbyapi does"
        )
        if split is not None and split.by is SplitBy.AUTO:
            remarks.append("its autosplit loads for the last token's logits alone: it fits a little more")
    if setting["allocator"] == EXPANDABLE:
        remarks.append("its environment: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True")
    if setting["attention_requested"] not in (None, "auto", "flash"):
        remarks.append(f"it has no key for attention={setting['attention_requested']}")
    if setting["draft_model"] is not None and not setting["lazy"]:
        remarks.append("it loads the draft model by autosplit, unlike the rows, unless draft_gpu_split says how")
    if setting["draft_model"] is not None and setting["num_draft_tokens"] != SPEC.default_draft_tokens:
        remarks.append(f"it has {SPEC.default_draft_tokens} tokens proposed, whatever num_draft_tokens is")
    chunk = setting["max_input_len"]
    if (
        not setting["load_as"]
        and chunk is not None
        and (setting["max_attention_size"] or MAX_ATTENTION_SIZE) != chunk**2
    ):
        remarks.append("it also sets max_attention_size to chunk_size squared, unlike the rows")
    return "\n".join(
        [
            *(f"# {remark}" for remark in remarks),
            "model:",
            f"  model_name: DIR  # {wanted_weights(chosen)}, below model_dir",
            "  backend: exllamav2",
            f"  max_seq_len: {whole}",
            f"  cache_size: {_cache_tokens(chosen, whole)}",
            f"  cache_mode: {setting['cache']}",
            *([] if setting["max_input_len"] is None else [f"  chunk_size: {setting['max_input_len']}"]),
            f"  max_batch_size: {setting['max_batch_size'] or chosen.batch_size}",
            *([] if split is None else _split_keys(split)),
            *([] if setting["draft_model"] is None else _draft_keys(chosen)),
            *(["  vision: true"] if setting["vision"] else []),
            "memory:",
            "  cuda_malloc_async: false",
        ]
    )


def _draft_keys(chosen: Chosen) -> list[str]:
    return [
        "draft_model:",
        f"  draft_model_name: DRAFT_DIR  # {_wanted_draft(chosen)}, below draft_model_dir",
        f"  draft_cache_mode: {chosen.setting['draft_cache']}",
    ]


def _split_keys(split: Split) -> list[str]:
    """TabbyAPI's keys for several GPUs; its reserve is in MiB."""
    if split.by is SplitBy.AUTO:
        reserve = _DEFAULT_RESERVE_MIB if split.reserve_bytes is None else [n >> 20 for n in split.reserve_bytes]
        return ["  gpu_split_auto: true", f"  autosplit_reserve: {reserve}"]
    gib = [] if split.gpu_split_gib is None else [f"  gpu_split: {list(split.gpu_split_gib)}"]
    if split.by is SplitBy.TENSOR_PARALLEL:
        return ["  tensor_parallel: true", *gib]
    return ["  gpu_split_auto: false", *gib]


def _other(line: str, size: int | None) -> list[str]:
    """A line for a `max_attention_size` that is not the engine's own."""
    return [] if size in (None, MAX_ATTENTION_SIZE) else [line.format(size)]
