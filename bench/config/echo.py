"""Numbers in a refusal as they were typed: Hydra reads `1e3` as 1000.0, and that is no word of the user's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.core.errors import BadInput

_NUMBER = re.compile(r"[^\s,\[\]=]+")


@contextmanager
def as_typed(overrides: Sequence[str]) -> Iterator[None]:
    """Within it, a `BadInput` that begins with a key and its number has the number as `overrides` have it."""
    try:
        yield
    except BadInput as error:
        said = str(error)
        for key, _, value in (text.lstrip("+").partition("=") for text in overrides):
            for typed in _NUMBER.findall(value):
                read = f"{key}={_as_read(typed)}:"
                if said.startswith(read):
                    raise BadInput(f"{key}={typed}:{said.removeprefix(read)}") from error
        raise


def _as_read(typed: str) -> str:
    """How Hydra's number is written; what is none stays as it is."""
    try:
        return str(float(typed))
    except ValueError:
        return typed
