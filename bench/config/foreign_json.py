"""JSON files of a model that anybody may have written: read within bounds, so that what follows can rely on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.core.printable import is_printable, printable
from bench.core.regular_files import open_regular

MOST_BYTES = 4 << 20  # published ones have 100 kB at most
MOST_TEXT = 1 << 16  # characters of one text
MOST_DEPTH = 32


class BadJson(ValueError):
    """What is wrong, to be said after `is` or a colon."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file `path`. Raises `BadJson`, and `OSError` for what cannot be read."""
    with open_regular(path) as file:
        data = file.read(MOST_BYTES + 1)
    return parse_object(data)


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object that `data` is, in UTF-8. Raises `BadJson`."""
    if len(data) > MOST_BYTES:
        raise BadJson(f"longer than {MOST_BYTES:,} bytes")
    try:
        document = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise BadJson(f"nested more than {MOST_DEPTH} deep") from None
    except ValueError as error:
        raise BadJson(f"not a JSON object ({_in_a_line(error)})") from None
    if not isinstance(document, dict):
        raise BadJson("not a JSON object")
    _check(document)
    return document


def _check(document: Any) -> None:
    """Level by level, as what is nested too deep for a program's stack is to be told, too."""
    level: list[Any] = [document]
    for _ in range(MOST_DEPTH):
        inner: list[Any] = []
        for value in level:
            for each in (*value, *value.values()) if isinstance(value, dict) else value:
                if isinstance(each, dict | list):
                    inner.append(each)
                elif isinstance(each, str):
                    _check_text(each)
        if not inner:
            return
        level = inner
    raise BadJson(f"nested more than {MOST_DEPTH} deep")


def _check_text(text: str) -> None:
    if len(text) > MOST_TEXT:
        raise BadJson(f"one with a text of {len(text):,} characters ({text[:20]!r}…); {MOST_TEXT:,} are allowed")
    if not is_printable(text, keep="\t\n\r\u200b\u200c\u200d\u2060\ufeff"):
        raise BadJson(f"one with a text that cannot be shown ({printable(text[:40])})")


def _in_a_line(error: ValueError) -> str:
    return str(error).splitlines()[0][:200]
