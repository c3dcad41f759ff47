"""What ExLlamaV2 refuses of a model's own files, told by the key and what to do."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from bench.worker.engines.exllamav2.choices import require_known_architecture
from bench.worker.interfaces.engine import Unsupported

_ABOUT_TENSORS = re.compile(r"Could not find .* in model|No \.safetensors files found")
_COLUMNS = 32  # ExLlamaV2Linear pads to a multiple of them
_IN_WORDS = {int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "an object", bool: "a bool"}


def read_config(config: dict[str, Any]) -> Any:
    """The ExLlamaV2Config of a config.json (parsed), as far as it is read without weights.

    Raises `Unsupported` for one that the engine refuses.
    """
    from exllamav2.config import ExLlamaV2Config

    require_known_architecture(config)
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "config.json").write_text(json.dumps(config))
        read = ExLlamaV2Config()
        read.model_dir = directory
        with refusals_explained():
            read.prepare(no_tensors=True)
    if reason := _what_fails_later(read):
        raise Unsupported(f"ExLlamaV2 cannot run config.json: {reason}")
    return read


def _what_fails_later(read: Any) -> str | None:
    """What the engine takes, of an ExLlamaV2Config, and fails over when it makes its modules or runs them."""
    queries, keys, head_dim = read.num_attention_heads, read.num_key_value_heads, read.head_dim
    if queries % keys or queries < keys:
        return f"num_key_value_heads is {keys}, and num_attention_heads {queries}; the one has to divide the other"
    for name, heads in (("num_attention_heads", queries), ("num_key_value_heads", keys)):
        if heads * head_dim % _COLUMNS:  # it pads what a projection has, and cannot share that out among the heads
            return f"head_dim is {head_dim}, and {name} {heads}; it needs a multiple of {_COLUMNS} in all"
    if read.pad_token_id is not None and not -read.vocab_size <= read.pad_token_id < read.vocab_size:
        return f"pad_token_id is {read.pad_token_id}; vocab_size is {read.vocab_size}, so write less, or null, there"
    if read.arch.lm.is_moe:
        experts, chosen = read.num_experts, read.num_experts_per_token
        for name, number in (("the number of experts", experts), ("the number of experts per token", chosen)):
            if not number:
                return f"{read.architecture} has experts, and {name} is {number}; add it, as the original model has it"
        if chosen > experts:
            return f"it has {experts} experts, and chooses {chosen} for each token; write at most {experts} there"
    return None


@contextlib.contextmanager
def refusals_explained() -> Iterator[None]:
    """Turns what `ExLlamaV2Config.prepare` raises over a model's JSON files into `Unsupported`."""
    try:
        yield
    except (OSError, MemoryError, Unsupported):
        raise
    except Exception as error:
        if _ABOUT_TENSORS.search(str(error)):
            raise
        raise Unsupported(f"ExLlamaV2 cannot read {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """Which key of which file, what is wrong with it, and what to do."""
    frames = {frame.f_code.co_name: frame for frame, _ in traceback.walk_tb(error.__traceback__)}
    prepare, read = frames.get("prepare"), frames.get("read")
    name = _file(error, prepare, read)
    known: dict[str, Any] = prepare.f_locals if prepare is not None else {}
    text = str(error)
    if "both `type` and `rope_type`" in text:
        return f"{name}: rope_scaling has both `type` and `rope_type`; take one of the two out of it"
    if isinstance(error, AssertionError) and (key := re.match(r"'(\w+)' required for '\w+' scaling", text)):
        return f"{name}: longrope needs {key[1]}, and it has none; add it, as the original model has it"
    if isinstance(error, KeyError):
        scaling = known.get("scaling_type")
        where = f"rope_scaling of type {scaling}" if scaling else "it"
        return f"{name}: {where} has no {error.args[0]}; add it, with the value that the model was trained with"
    if read is not None and ("not of expected type" in text or "cannot convert float" in text):  # NaN, Infinity
        key, value = read.f_locals.get("key"), read.f_locals.get("x")
        types = read.f_locals.get("expected_types") or []
        wanted = " or ".join(_IN_WORDS.get(each, each.__name__) for each in types)
        return f"{name}: {key} is {json.dumps(value)}; write {wanted} there"
    if read is not None and text.startswith("Missing any of the following keys"):
        keys = [str(key).replace("->", ".") for key in read.f_locals.get("keys") or [] if key]
        return f"{name}: it has no {' or '.join(keys)}; add it, as the original model has it"
    if "preprocessor_config.json" in text and "Can't find" in text:
        return f"{name}: there is none; take the file from the original model"
    line = traceback.extract_tb(error.__traceback__)[-1].line
    return f"{name}: {type(error).__name__}: {text} (at `{line}`); compare it with the original model's"


def _file(error: Exception, prepare: FrameType | None, read: FrameType | None) -> str:
    """Which file was being read."""
    of_vision = prepare.f_locals.get("read_prep_config") if prepare is not None else None
    about = read.f_locals.get("input_dict") if read is not None else None
    said = str(error)
    if (of_vision is not None and about is of_vision) or "preprocessor_config" in said or "image processor" in said:
        return "preprocessor_config.json"
    return "config.json"
