"""Rewrites overrides as typed by users into Hydra's grammar, so that text stays text.

Hydra reads 2026_11_28 as a number, and a brace or a letter that is not ASCII as a mistake. Which keys are text is what
the schema says; their values are put in quotes here. What is in quotes already stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from bench.config.catalogue import GROUPS
from bench.config.settings import Settings

_PATHS = ("model.path", "results_dir")
LISTS = ("retry",)  # of one sweep, where a comma makes no axis
_OVERRIDE = re.compile(r"(\+{0,2}[^=]*)=(.*)", re.DOTALL)
_QUOTED = re.compile(r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")\s*(?=,|$)""", re.DOTALL)
_STRAY = re.compile(r"(?<!\\)\$\{(?![\w.:,@/\[\] -]+\})")  # what is no ${key} and no ${resolver:…}
_LITERAL = r"\\${"
_AXIS = re.compile(r"(choice|glob|sort|shuffle)\(.*\)", re.DOTALL)  # Hydra makes an axis of these


def as_override(text: str) -> str:
    """The override that Hydra reads as `text` was meant; idempotent. What is no key=value stays as it is."""
    match = _OVERRIDE.fullmatch(text)
    if match is None:
        return text
    key, value = match.groups()
    bare = key.lstrip("+")
    if bare in LISTS and "," in value and not value.lstrip().startswith("["):
        return f"{key}=[{value}]"
    if not is_text(bare) or value == "" or _AXIS.fullmatch(value):
        return text
    words = words_of(bare, value)
    return f"{key}={','.join(word if is_ready else quoted(_STRAY.sub(_LITERAL, word)) for word, is_ready in words)}"


def quoted(text: str) -> str:
    """`text` as Hydra's grammar writes a text, whatever is in it."""
    escaped = re.sub(r'(\\+)(?="|$)', r"\1\1", text).replace('"', '\\"')
    return f'"{escaped}"'


def words_of(key: str, value: str) -> Iterator[tuple[str, bool]]:
    """The values of an axis of text, and of each whether Hydra is to take it as it is: in quotes already, or null.

    A comma separates, unless it is part of a path that exists; blanks beside it mean nothing.
    """
    are_paths = key in (*_PATHS, *GROUPS)
    position = 0
    while position <= len(value):
        rest = value[position:]
        if match := _QUOTED.match(rest):
            yield match[1], True
            position += match.end() + 1
            continue
        word = _longest_path(rest) if are_paths else None
        word = rest.split(",", 1)[0] if word is None else word
        yield (word if word == value else word.strip()), word == "null"
        position += len(word) + 1


def _longest_path(text: str) -> str | None:
    """The longest beginning of `text`, up to a comma or the end, that lies on the disk; None where none has a comma."""
    ends = [match.start() for match in re.finditer(",|$", text)]
    for end in reversed(ends[1:]):
        try:
            if Path(text[:end]).expanduser().exists():
                return text[:end]
        except (OSError, ValueError, RuntimeError):
            continue
    return None


@cache
def is_text(key: str) -> bool:
    """Whether the schema has text at `key`; the names of a group's files are."""
    if key in GROUPS:
        return True
    kind: Any = Settings
    for part in key.split("."):
        if is_dataclass(kind):
            kind = get_type_hints(kind).get(part)
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            return False
    return kind is str or (str in get_args(kind) and set(get_args(kind)) <= {str, type(None)})


def searched(folder: str) -> str:
    """The override that adds a folder of the user's own models, cards and experiments."""
    return f"hydra.searchpath=[{quoted(str(Path(folder).expanduser().absolute()))}]"
