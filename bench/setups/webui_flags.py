"""The flags of text-generation-webui that decide memory of a card with the engines here, and those that decide none."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from bench.core.errors import BadInput
from bench.core.printable import is_printable, printable

_MOST_CHARACTERS = 1 << 16

# Of its page, its API, what it samples with, and the memory of the host.
_NO_MEMORY_ALONE = (
    *("multi-user", "model-menu", "verbose", "listen", "share", "auto-launch", "old-colors", "portable", "api"),
    *("public-api", "api-enable-ipv6", "api-disable-ipv4", "nowebui", "trust-remote-code", "force-safetensors"),
    *("no_use_fast", "chat", "notebook", "enable-thinking", "no-enable-thinking", "preserve-thinking"),
    *("do-sample", "no-do-sample", "dynamic-temperature", "temperature-last", "gradio"),
)
_NO_MEMORY_WITH_VALUE = (
    *("user-data-dir", "lora-dir", "settings", "idle-timeout", "listen-port", "listen-host", "gradio-auth"),
    *("gradio-auth-path", "ssl-keyfile", "ssl-certfile", "subpath", "public-api-id", "api-port", "api-key"),
    *("admin-key", "chat-template-file", "reasoning-effort", "temperature", "top-p", "top-k", "min-p", "seed"),
    *("alpha_value", "compress_pos_emb", "rope_freq_base", "draft-min", "extensions"),
)


@dataclass(frozen=True)
class WebuiFlags:
    """What flags say: `values` of those that decide memory, by name; the others by name."""

    values: dict[str, Any]
    no_memory: list[str]
    unknown: list[str]

    def get(self, name: str) -> Any:
        """The value of a flag; None where it is not there, and a switch that is not there is False."""
        return self.values.get(name)


def webui_flags(text: str) -> WebuiFlags:
    """The flags in `text`, as a shell would read them. Raises `BadInput` for what is no flag, or out of range."""
    if len(text) > _MOST_CHARACTERS or not is_printable(text, keep="\t\n\r"):
        raise BadInput("--webui: no flags that can be read; give those that server.py is started with, in quotes")
    try:
        words = shlex.split(text.replace("\\\n", " "))
    except ValueError as error:
        raise BadInput(f"--webui: {error}; give the flags that server.py is started with, in quotes") from None
    first = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    if first == len(words):
        raise BadInput(
            f"--webui {printable(text[:80])!r}: no flags; give those that server.py is started with, in quotes"
        )
    parser = _parser()
    values, rest = parser.parse_known_args(words[first:])  # before them stands how the server is started
    told = {name: value for name, value in vars(values).items() if value not in (None, False)}
    ignored = {_name(word) for word in (*_NO_MEMORY_ALONE, *_NO_MEMORY_WITH_VALUE)}
    return WebuiFlags(
        {name: value for name, value in told.items() if name not in ignored},
        [_flag(name) for name in told if name in ignored],
        [printable(word.partition("=")[0]) for word in rest if word.startswith("-")],
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"--webui: {printable(message)}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    for names in (("--model",), ("--model-dir",), ("--loader",), ("--model-draft",), ("--tp-backend",)):
        parser.add_argument(*names)
    parser.add_argument("--lora", nargs="+")
    parser.add_argument("--ctx-size", "--ctx_size", "--n_ctx", "--max_seq_len", type=_tokens, metavar="N")
    parser.add_argument("--ctx-size-draft", type=_tokens, metavar="N")
    parser.add_argument("--cache-type", "--cache_type")
    parser.add_argument("--gpu-split", "--gpu_split", type=_sizes, metavar="GB,GB")
    parser.add_argument("--draft-max", type=_count, metavar="N")
    parser.add_argument("--num_experts_per_token", type=_count, metavar="N")
    for switch in ("--autosplit", "--cfg-cache", "--cache_8bit", "--cache_4bit"):
        parser.add_argument(switch, action="store_true")
    parser.add_argument("--enable-tp", "--enable_tp", action="store_true")
    for name in ("flash_attn", "xformers", "sdpa"):
        parser.add_argument(f"--no_{name}", action="store_true")
    for name in _NO_MEMORY_ALONE:
        parser.add_argument(f"--{name}", action="store_true")
    for name in _NO_MEMORY_WITH_VALUE:
        parser.add_argument(f"--{name}", nargs="+")
    return parser


def _name(flag: str) -> str:
    return flag.replace("-", "_")


def _flag(name: str) -> str:
    dashed = name.replace("_", "-")
    return f"--{dashed if dashed in (*_NO_MEMORY_ALONE, *_NO_MEMORY_WITH_VALUE) else name}"


def _tokens(text: str) -> int:
    return _whole(text, 0, 1 << 24)


def _count(text: str) -> int:
    return _whole(text, 1, 1 << 20)


def _whole(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or len(text) > 8 or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text}: allowed are whole numbers from {least} to {most}")
    return int(text)


def _sizes(text: str) -> Sequence[float]:
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = [-1.0]
    if not all(0 <= size <= 4096 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text}: allowed are GB for each card: 20,7,7")
    return sizes
