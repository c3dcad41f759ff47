"""The command line of text-generation-webui as keys, for its loaders of the engines here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.core.case import PAGE
from bench.core.errors import BadInput
from bench.core.printable import printable
from bench.setups.setup import Setup, is_typed
from bench.setups.split_keys import tell_split
from bench.setups.surroundings import frontends, in_pages, model_of, surroundings
from bench.setups.webui_flags import WebuiFlags, webui_flags

OPTION = "webui"
_SOURCE = "--webui"
_MODELS = "user_data/models"
_KEY_OF = {"max_seq_len": "--ctx-size", "cache": "--cache-type"}
_NONE = ("", "none")


def read_webui(text: str, typed: Sequence[str]) -> Setup:
    """What the flags in `text` say, beside the overrides that were `typed`. Raises `BadInput`."""
    flags = webui_flags(text)
    folder, name = Path(flags.get("model_dir") or _MODELS), flags.get("model")
    model = model_of(_SOURCE, "--model", folder / name if name else None, typed)
    loader = flags.get("loader")
    around = surroundings(_SOURCE, model, _engine_name(loader), typed)
    frontend = around.engine.frontends.get(OPTION)
    if frontend is None:
        raise BadInput(
            f"{_SOURCE}: it has no loader of {around.engine.title}; loaders are {', '.join(frontends(OPTION))}"
        )
    setup = Setup(_SOURCE, around.engine, frontend, typed, _KEY_OF, unknown=flags.unknown, no_memory=flags.no_memory)
    if model:
        setup.take(f"--model {printable(name)}", *model)
    elif name:
        setup.leave(f"--model {printable(name)}", "the model was typed beside it")
    setup.take(f"--loader {loader}" if loader else "(no --loader: by the weights)", f"engine={around.engine.name}")
    tokens = flags.get("ctx_size") or frontend.default_tokens or PAGE
    said = f"--ctx-size {tokens}" if flags.get("ctx_size") else "(no --ctx-size)"
    setup.take(said, f"max_seq_len={in_pages(tokens) if frontend.whole_pages else tokens}")
    _tell_cache(setup, flags)
    load = "autosplit" if flags.get("autosplit") else frontend.load
    setup.take("--autosplit" if flags.get("autosplit") else "(how it loads by itself)", f"load={load}")
    if around.cards > 1:
        setup.read.pop("(how it loads by itself)", None)  # the split says so
    tell_split(
        setup,
        around.cards,
        is_tensor_parallel=bool(flags.get("enable_tp")),
        gpu_split=None if flags.get("autosplit") else flags.get("gpu_split"),
        is_auto=load == "autosplit",
    )
    _tell_attention(setup, flags)
    _tell_rest(setup, flags)
    return setup


def _engine_name(loader: str | None) -> str | None:
    if loader is None:
        return None
    known = frontends(OPTION)
    if loader.lower() not in known:
        raise BadInput(
            f"{_SOURCE}: --loader {printable(loader)} is none of an engine here; allowed are {', '.join(known)}"
        )
    return known[loader.lower()][0].name


def _tell_cache(setup: Setup, flags: WebuiFlags) -> None:
    """`--cache_8bit` and `--cache_4bit` are of versions before 2025; the first was FP8, which is not run here."""
    said = flags.get("cache_type")
    if said is not None:
        told = f"--cache-type {printable(said)}"
        setup.take(told, f"cache={setup.cache_of(told, said)}")
    elif flags.get("cache_4bit"):
        setup.take("--cache_4bit", f"cache={setup.cache_of('--cache_4bit', 'q4')}")
    if flags.get("cache_8bit"):
        setup.leave("--cache_8bit", "an FP8 cache is not run here: cache=Q8 is about as large")


def _tell_attention(setup: Setup, flags: WebuiFlags) -> None:
    """The first back end in the engine's order that is not switched off."""
    off = [name for name in ("flash_attn", "xformers", "sdpa") if flags.get(f"no_{name}")]
    if not off:
        return
    said = " ".join(f"--no_{name}" for name in off)
    names = [name for name in setup.engine.attentions if not any(each.startswith(name) for each in off)]
    if names:
        setup.take(said, f"attention={names[0]}")
    else:
        setup.leave(said, f"{setup.engine.title} has no such switches")


def _tell_rest(setup: Setup, flags: WebuiFlags) -> None:
    """What takes memory and is not done here."""
    if setup.frontend.unlike:
        setup.leave("(how it runs)", setup.frontend.unlike)
    draft = flags.get("model_draft")
    if draft and draft.lower() not in _NONE and not is_typed("draft.model", setup.typed):
        setup.leave(f"--model-draft {printable(draft)}", "its weights and its cache come on top")
    for name in ("draft_max", "ctx_size_draft"):
        if flags.get(name):
            setup.leave(f"--{name.replace('_', '-')} {flags.get(name)}", "of a draft model, and none is run here")
    if flags.get("cfg_cache"):
        setup.leave("--cfg-cache", "a second cache as large as the first comes on top")
    if experts := flags.get("num_experts_per_token"):
        setup.leave(f"--num_experts_per_token {experts}", "here it is the model's own number of experts")
    if flags.get("lora"):
        setup.leave("--lora", "LoRAs are not loaded here: they come on top")
    if (backend := flags.get("tp_backend")) not in (None, "native"):
        setup.leave(f"--tp-backend {printable(backend)}", "its buffers come on top")
