"""The keys of TabbyAPI's config.yml, of all versions since October 2024: their types, ranges and subjects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from bench.core.errors import BadInput
from bench.core.printable import printable

_MOST_CARDS = 64
_MOST_GB, _MOST_MB = 4096, 4096 << 10


def _number(value: Any) -> Any:
    """Python would take true for 1."""
    if isinstance(value, bool):
        raise ValueError
    return value


def _list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class _Kind:
    """A type with its range, and that in words."""

    adapter: TypeAdapter[Any]
    words: str


def _kind(annotation: Any, words: str) -> _Kind:
    return _Kind(TypeAdapter(annotation), words)


_FLAG = _kind(bool, "true or false")
_TEXT = _kind(Annotated[str, Field(max_length=4096)], "text")
_WORD = _kind(Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)], "text")
_COUNT = _kind(Annotated[int, BeforeValidator(_number), Field(ge=1, le=1 << 20)], "a whole number from 1 on")
_TOKENS = _kind(Annotated[int, BeforeValidator(_number), Field(ge=-1, le=1 << 24)], "tokens; -1 is the model's own")
_PAGES = _kind(
    Annotated[int, BeforeValidator(_number), Field(gt=0, le=1 << 24, multiple_of=256)], "tokens, a multiple of 256"
)
_NOT_NEGATIVE = _kind(Annotated[int, BeforeValidator(_number), Field(ge=0)], "a whole number from 0 on")


def _sizes(most: int, unit: str) -> _Kind:
    each = Annotated[float, BeforeValidator(_number), Field(ge=0, le=most, allow_inf_nan=False)]
    kind = Annotated[list[each], BeforeValidator(_list), Field(max_length=_MOST_CARDS)]
    return _kind(kind, f"a list of {unit}, one for each GPU")


# Those that decide memory of a card.
_CHECKED = {
    "model": {
        **dict.fromkeys(("model_dir", "model_name"), _TEXT),
        **dict.fromkeys(("backend", "cache_mode", "tensor_parallel_backend"), _WORD),
        **dict.fromkeys(("tensor_parallel", "gpu_split_auto", "vision"), _FLAG),
        "max_seq_len": _TOKENS,
        "cache_size": _PAGES,
        "chunk_size": _COUNT,
        "max_batch_size": _COUNT,
        "autosplit_reserve": _sizes(_MOST_MB, "MB"),
        "gpu_split": _sizes(_MOST_GB, "GB"),
        "cpu_moe_offload_layers": _NOT_NEGATIVE,
        "num_experts_per_token": _COUNT,
    },
    "draft_model": {
        **dict.fromkeys(("draft_model_dir", "draft_model_name"), _TEXT),
        **dict.fromkeys(("draft_mode", "draft_cache_mode"), _WORD),
        "draft_gpu_split": _sizes(_MOST_GB, "GB"),
        "draft_num_tokens": _COUNT,
        "dynamic_draft": _FLAG,
    },
    "memory": {"cuda_malloc_async": _FLAG},
    "embeddings": {"embeddings_device": _WORD, "embedding_model_name": _TEXT},
    "developer": {"cuda_malloc_backend": _FLAG},
}
# Those that decide none: networks, logs, templates, positions, what is kept in the host's memory.
_NO_MEMORY = {
    "network": (
        *("host", "port", "disable_auth", "disable_fetch_requests", "send_tracebacks", "api_servers"),
        "sse_ping_interval",
    ),
    "logging": (
        *("log_prompt", "log_generation_params", "log_requests", "log_chat_completion_requests"),
        *("prompt", "generation_params", "requests"),
    ),
    "model": (
        *("inline_model_loading", "use_dummy_models", "dummy_model_names", "use_as_default", "output_chunking"),
        *("rope_scale", "rope_alpha", "prompt_template", "template_vars_default", "template_vars_force"),
        *("force_enable_thinking", "reasoning", "reasoning_start_token", "reasoning_end_token"),
        *("reasoning_suppress_header", "start_in_reasoning", "tool_calls_in_reasoning", "reasoning_budget_tokens"),
        *("reasoning_budget_message", "tool_format", "harmony", "muse_glimmer", "fasttensors"),
    ),
    "draft_model": ("draft_rope_scale", "draft_rope_alpha", "ngram_match_min"),
    "sampling": ("override_preset",),
    "lora": ("lora_dir",),
    "embeddings": ("embedding_model_dir",),
    "memory": ("sysmem_recurrent_cache", "sysmem_kv_cache"),
    "developer": (
        *("unsafe_launch", "disable_request_streaming", "realtime_process_priority", "seqlog", "seqlog_server_url"),
        *("seqlog_api_key", "uvloop"),
    ),
}
_SECTIONS = (*dict.fromkeys((*_CHECKED, *_NO_MEMORY)),)
_LORAS = ("lora", "loras")


@dataclass(frozen=True)
class TabbyKeys:
    """What a file says: `values` of the keys that decide memory, checked, by section and key; the others by name."""

    values: dict[tuple[str, str], Any]
    no_memory: list[str]
    unknown: list[str]

    def get(self, key: str, section: str = "model") -> Any:
        """The value of a key; None where it is not there, or empty."""
        return self.values.get((section, key))


def tabby_keys(document: Mapping[str, Any], source: str) -> TabbyKeys:
    """The keys of a file, `document`. Raises `BadInput` for a file of another program, and for values out of range."""
    sections = _migrated(document)
    model = sections.get("model")
    known = {*_CHECKED["model"], *_NO_MEMORY["model"]}
    if not isinstance(model, Mapping) or not known & set(map(str, model)):
        found = ", ".join(map(printable, list(document)[:8])) or "nothing"
        raise BadInput(
            f"{source}: no config.yml of TabbyAPI's: it has no section `model:` with keys of its own (found: {found}); "
            "give the file that TabbyAPI starts with"
        )
    values: dict[tuple[str, str], Any] = {}
    no_memory: list[str] = []
    unknown: list[str] = []
    for section, content in sections.items():
        if section not in _SECTIONS:
            unknown.append(printable(section))
        elif content is not None and not isinstance(content, Mapping):
            raise BadInput(f"{source}: {section}: allowed are keys and values below it")
        for key, value in (content or {}).items() if section in _SECTIONS else ():
            name = printable(f"{section}.{key}")
            if value is None:
                continue  # as if it were not there
            if kind := _CHECKED.get(section, {}).get(str(key)):
                values[section, str(key)] = _checked(kind, value, f"{source}: {name}")
            elif (section, key) == _LORAS:
                values[_LORAS] = value
            elif key in _NO_MEMORY.get(section, ()):
                no_memory.append(name)
            else:
                unknown.append(name)
    return TabbyKeys(values, no_memory, unknown)


def _checked(kind: _Kind, value: Any, name: str) -> Any:
    try:
        return kind.adapter.validate_python(value)
    except ValidationError:
        raise BadInput(f"{name}={printable(str(value)[:80])}: allowed are {kind.words}") from None


def _migrated(document: Mapping[str, Any]) -> dict[str, Any]:
    """Sections where TabbyAPI itself puts those of older files: draft models and LoRAs were below the model once."""
    sections = dict(document)
    model = sections.get("model")
    if isinstance(model, Mapping):
        inner = {old: new for old, new in (("draft", "draft_model"), ("lora", "lora")) if model.get(old)}
        sections |= {new: model[old] for old, new in inner.items()}
        sections["model"] = {key: value for key, value in model.items() if key not in ("draft", "lora")}
    return sections
