"""Turns errors of Hydra and pydantic into one line: what was given, what is allowed, what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bench.config.allocators import SETTINGS, not_simulated
from bench.config.settings import Allowed, DeviceSettings, DraftSettings, ModelSettings, Settings
from bench.core.errors import nearest

_KEYS = (
    *(f.name for f in fields(Settings) if f.name != "draft_model"),
    *(f"draft.{f.name}" for f in fields(DraftSettings)),
    *(f"model.{f.name}" for f in fields(ModelSettings)),
    *(f"device.{f.name}" for f in fields(DeviceSettings) if f.name != "cards"),  # which have no file
)
# What people type who want a model on several GPUs, as other programs call it.
_HOW_MANY_GPUS = ("count", "gpu_count", "device_count", "gpus", "num_gpus", "n_gpu", "n_gpus", "ngpu", "devices")
_HOW_SPLIT = (
    *("gpu_split_auto", "autosplit", "split_mode", "tensor_split", "device_map"),
    *("tensor_parallel", "tensor_parallel_size", "tp"),
)
SEVERAL_GPUS = "several cards in one case are device=2xrtx_3090, device=rtx_4090+rtx_3060_12gb or device.index=0+1"
_SPLIT = "on several cards give split=auto, split=best, split=tensor_parallel, or split=[20,24] in GiB"
_TABBY_KEYS = (
    "cache_mode as cache, chunk_size as max_input_len, with scenario=generator cache_size and max_batch_size as they "
    "are, batch_size for the jobs at a time, and load=tabbyapi for how it loads"
)
TABBY = (
    "TabbyAPI's config.yml is read by --tabby FILE, with plan and sweep. Its keys by themselves: model_dir/model_name "
    f"as model=local model.path=DIR, {_TABBY_KEYS}"
)
_DRAFT = "a draft model is draft.model=NAME or draft.model.path=DIR, with scenario=generator"
_NO_MEMORY = "it changes positions, and no memory: give max_seq_len, or auto_up_to"
# Keys of other programs, and of what one looks for here.
_OTHER_PLACES = {
    **dict.fromkeys(("tokens", "context", "ctx", "n_ctx", "num_ctx"), "max_seq_len"),
    **dict.fromkeys(("max_model_len", "context_length"), "max_seq_len"),
    **dict.fromkeys(("native_max_seq_len", "max_position_embeddings"), "auto_up_to"),
    **dict.fromkeys(("cache_mode", "cache_type", "kv_cache"), "cache"),
    "chunk_size": "max_input_len",
    "gpu": "device",
    "model_dir": "model=local model.path",
    "model_name": "model=local model.path",
}
_ANSWERS = {
    **dict.fromkeys(_HOW_MANY_GPUS, SEVERAL_GPUS),
    **dict.fromkeys(_HOW_SPLIT, _SPLIT),
    **{name: not_simulated(name) for name in SETTINGS},
    **dict.fromkeys(("rope_alpha", "rope_scale", "rope_theta"), _NO_MEMORY),
    **dict.fromkeys(("tabby", "tabbyapi"), TABBY),
    **dict.fromkeys(("draft_model", "draft_model_name", "draft_model_dir"), _DRAFT),
    "draft_cache_mode": "the type of a draft model's cache is draft.cache",
    "draft_num_tokens": "how many tokens are proposed is num_draft_tokens",
}


def unknown_key(key: str) -> str:
    """For a key that no schema has."""
    group, dot, _ = key.partition(".")
    last = key.rpartition(".")[2]
    if last.lower() in _ANSWERS:
        return f"unknown key {key!r}: {_ANSWERS[last.lower()]}"
    if group == "hydra":
        return f"unknown key {key!r}; Hydra's own keys are listed by its documentation"
    if last in ("cache_mode", "chunk_size"):
        return f"unknown key {key!r}. Did you mean {_OTHER_PLACES[last]}? TabbyAPI's keys: {_TABBY_KEYS}"
    if last in _OTHER_PLACES:
        return f"unknown key {key!r}. Did you mean {_OTHER_PLACES[last]}?"
    if siblings := [known for known in _KEYS if dot and known.startswith(f"{group}.")]:
        return f"unknown key {key!r}. {nearest(key, siblings, f'{group}.')}"
    return f"unknown key {key!r}. {nearest(key, (known for known in _KEYS if '.' not in known))}"


def unknown_choice(group: str, name: str, names: Sequence[str]) -> str:
    """For a name that no file of a group has."""
    if group == "model" and (name.startswith((".", "/", "~")) or Path(name).is_dir()):
        return f"unknown model {name!r}: a directory is model=local model.path={name}"
    if group == "model" and "/" in name:
        repo, colon, revision = name.partition(":")
        at = f" model.revision={revision}" if colon else ""
        return (
            f"unknown model {name!r}: a repository is model=hub model.repo={repo}{at}, "
            f"a directory model=local model.path={name}"
        )
    if group == "device" and (number := re.fullmatch(r"[\[(]?(?:(?:cuda|gpu):?)?(\d\d?)[\])]?", name)):
        return f"unknown device {name!r}: a GPU of this machine is device=cuda device.index={number[1]}; {SEVERAL_GPUS}"
    if group == "device" and _means_several(name):
        return f"unknown device {name!r}: {SEVERAL_GPUS}"
    own = " For a card of your own see docs/adding-cards.md" if group == "device" else ""
    return f"unknown {group} {name!r}. {nearest(name, names)}{own}"


def _means_several(card: str) -> bool:
    """Whether a name asks for several cards: 2x rtx_3090, rtx_3090*2, rtx_3090+rtx_4090."""
    times = re.search(r"^(\d+) ?[x*×][ _]?\w|\w[ _]?[x*×] ?(\d+)$", card)
    return re.fullmatch(r"\w+( ?\+ ?\w+)+", card) is not None or (
        times is not None and 1 < int(times[1] or times[2]) < 100
    )


def composition(error: BaseException) -> str:
    """Hydra's message, from the error at its root, with the file and the key that it is about."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = [line.strip() for line in f"{error}\n{root}".splitlines() if line.strip()]
    text = "\n".join(lines)
    file = re.search(r"In '([^']+)':", text)
    where = f"conf file {file[1]}: " if file else ""
    key = getattr(root, "full_key", None) or next(iter(re.findall(r"full_key: (\S+)", text)), "")
    if "Could not append" in text or "Multiple values for" in text:
        return "a key that exists needs no +; write key=value"
    if found := re.search(r"Key '([^']+)' (?:is not in struct|not in ')", text):
        return where + unknown_key(key or found[1])
    if "Interpolation key" in text:
        return where + f"{key}: {next(line for line in lines if 'Interpolation' in line)}; \\${{ is the text ${{"
    last = next((line for line in reversed(lines) if not re.match(r"(full_key|object_type|reference_type)", line)), "")
    return where + (f"{key}: {last}" if key and key not in last else last or type(root).__name__)


def invalid(error: ValidationError) -> str:
    """What pydantic refuses, in the words of the schema."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if key.startswith("draft_model."):
        return _invalid(first, key).replace("draft_model.", "draft.", 1)
    if card := re.fullmatch(r"device\.cards\.(\d+)\.(\w+)", key):  # which is in a file of its own
        return f"device: card {int(card[1]) + 1} of the machine, {_invalid(first, f'device.{card[2]}')}"
    return _invalid(first, key)


def _invalid(first: ErrorDetails, key: str) -> str:
    if first["type"] == "unexpected_keyword_argument":
        return unknown_key(key)
    own_words = str(first.get("ctx", {}).get("error", ""))
    allowed, given = _allowed(key), _as_typed(first["input"])
    if own_words and not (allowed and first["type"] != "value_error"):
        return f"{key}: {own_words}" if repr(first["input"]) in own_words else f"{key}={given}: {own_words}"
    return f"{key}={given}: {f'allowed are {allowed}' if allowed else first['msg'].lower()}"


def _as_typed(value: Any) -> str:
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _allowed(key: str) -> str | None:
    kind: Any = Settings
    for part in key.split("."):
        if not is_dataclass(kind):
            return None
        kind = get_type_hints(kind, include_extras=True).get(part)
    return _words(kind)


def _words(kind: Any) -> str | None:
    """The innermost `Allowed` that a type is annotated with, the outermost first."""
    for metadata in getattr(kind, "__metadata__", ()):
        if isinstance(metadata, Allowed):
            return metadata.words
    inner = getattr(kind, "__origin__", None) if hasattr(kind, "__metadata__") else None
    for one in (inner, *get_args(kind)):
        if one is not None and (words := _words(one)):
            return words
    return None
