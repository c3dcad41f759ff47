"""`vram-bench completion`: a script that completes commands, options, keys and names; the only door to shtab.

What completes KEY=VALUE, and the last value of an axis, is written once for each shell, in `shells/`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import shtab

from bench.commands.command_line import commands_of, make_parser
from bench.config import compose as config
from bench.config.settings import AUTO, DeviceSettings, ModelSettings, Settings
from bench.core.errors import ExitCode
from bench.engines.registry import engines

_SHELLS = Path(__file__).parent / "shells"
_FOLDER = "/"  # in place of values: any folder
_INNER: dict[str, type] = {"model": ModelSettings, "device": DeviceSettings}
_NO_TEXT = ("model.config", "device.sources")  # objects: not typed on a command line as a whole
_BASH_ENTRY = "complete -o bashdefault -F _vram_bench vram-bench"
# How shtab has zsh take as many arguments as there are, and what does: its own takes one.
_ZSH_MANY, _ZSH_ALL = re.compile(r'"\(\*\)::?(?=[^"\n]*:_vram_bench_override")'), '"*:'
_OVERRIDE = {"bash": "_vram_bench_override", "zsh": "_vram_bench_override", "fish": "(_vram_bench_override)"}


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench completion SHELL`."""
    return completion(arguments.shell)


def completion(shell: str) -> int:
    """Prints the script for `shell`; returns the exit code."""
    parser, values = make_parser(), _values()
    words = [word for key, named in values.items() for word in (f"{key}=", *(f"{key}={name}" for name in named))]
    override = {**_OVERRIDE, "tcsh": f"({' '.join(words)})"}
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for summary in commands._get_subactions():
        commands.choices[summary.dest].description = summary.help  # zsh and fish show a line
    for command in commands_of(parser).values():
        _mark(command, override)
    preamble = {name: _functions(name, values) for name in _OVERRIDE}
    script = shtab.complete(parser, shell, preamble=preamble.get(shell, ""))
    print(_ZSH_MANY.sub(_ZSH_ALL, script))
    if shell == "bash":
        print(_BASH_ENTRY)
    return ExitCode.DONE


def _mark(command: argparse.ArgumentParser, override: Mapping[str, str]) -> None:
    """Says of each argument of a command, and of the commands below it, what completes it."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _mark(below, override)
        elif action.dest == "overrides":
            action.complete = override  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in ("FILE", "FILE.md", "BASE", "HEAD"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]


def _functions(shell: str, values: Mapping[str, list[str]]) -> str:
    """The functions of a shell that complete an override, with all that is known of keys."""
    case = "    case {}\n      printf '%s\\n' {}" if shell == "fish" else "    {}) echo '{}' ;;"
    cases = "\n".join(case.format(key, " ".join(named)) for key, named in values.items() if named)
    text = (_SHELLS / f"overrides.{shell}").read_text(encoding="utf-8")
    return text.replace("@VALUES@", cases).replace("@KEYS@", " ".join(f"{key}=" for key in values))


def _values() -> dict[str, list[str]]:
    """Every key, and the values that are known of it: names of files, members of enums, true and false."""
    found = {key: list(_members(kind)) for key, kind in _kinds("", Settings)}
    found |= {group: config.names(group) for group in ("model", "device", "experiment")}
    found["device"].append("all")
    found["max_seq_len"] = found["cache_size"] = [AUTO]
    found["cache"] = list(dict.fromkeys(name for engine in engines() for name in engine.caches))
    return dict(sorted({**found, "model.path": [_FOLDER], "results_dir": [_FOLDER], "hydra/launcher": []}.items()))


def _kinds(prefix: str, schema: type) -> Iterator[tuple[str, Any]]:
    kinds = get_type_hints(schema)
    for member in fields(schema):
        key = f"{prefix}{member.name}"
        if key not in _NO_TEXT:
            yield key, kinds[member.name]
        if key in _INNER:
            yield from _kinds(f"{key}.", _INNER[key])


def _members(kind: Any) -> Iterator[str]:
    if kind is bool:
        yield from ("true", "false")
    elif isinstance(kind, type) and issubclass(kind, Enum):
        yield from (str(member.value) for member in kind)
    else:
        for one in get_args(kind):  # of a key that may be null, too
            yield from _members(one)
