"""The keys of a draft model: `draft.model`, `draft.bpw` and `draft.cache`, as `model`, `bpw` and `cache` name a model.

Hydra has a text at `draft`, and no keys below it: what is below it is a command line of its own, that of the draft.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from bench.config.settings import Draft, ModelSettings
from bench.core.errors import BadInput, nearest

PREFIX = "draft."
KEYS = ("model", "bpw", "cache")
_KNOWN = tuple(f"{PREFIX}{key}" for key in (*KEYS, *(f"model.{each.name}" for each in fields(ModelSettings))))
_KEY = re.compile(r"(?<![\w.])(model(?=[=.]\w)|(?:model|bpw|cache)(?==))")
Combinations = list[dict[str, Any]]


def taken_out(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides of the model, and those of its draft as they would be typed for a model. Raises `BadInput`."""
    mine, drafts = [], []
    for text in overrides:
        bare = text.lstrip("+")
        if not bare.startswith(PREFIX):
            mine.append(text)
            continue
        key = bare.partition("=")[0]
        if key not in _KNOWN and not key.startswith(f"{PREFIX}model.config."):
            raise BadInput(f"unknown key {key!r}. {nearest(key, _KNOWN, PREFIX)}")
        drafts.append(bare.removeprefix(PREFIX))
    return mine, drafts


def drafts_of(overrides: Sequence[str], combine: Callable[[Sequence[str]], Combinations]) -> Combinations:
    """The keys of each draft model that `overrides`, the draft's own, ask for; `combine` is what a model is asked by.

    Raises `BadInput`, in which keys have the names that they were typed by.
    """
    if not overrides:
        return []
    if not any(text.startswith(("model=", "model.path=")) for text in overrides):
        typed = " ".join(PREFIX + text for text in overrides)
        raise BadInput(f"{typed}: which model proposes tokens? Name it by draft.model=NAME or draft.model.path=DIR")
    with named_as_typed():
        found = combine(overrides)
    return [{key: each[key] for key in KEYS} for each in found]


def with_drafts(settings: Combinations, drafts: Combinations, is_draft_asked: bool) -> Combinations:
    """Each combination that asks for a draft model, with each of `drafts`; the others as they are.

    A draft model that is named is asked for, unless `draft` says otherwise. Raises `BadInput`.
    """
    asked = [_asked(each, bool(drafts) and not is_draft_asked) for each in settings]
    of_a_model = [each for each in asked if each["draft"] == Draft.model.value]
    if of_a_model and not drafts:
        raise BadInput("draft=model: which model proposes tokens? Name it by draft.model=NAME or draft.model.path=DIR")
    if drafts and not of_a_model:
        others = ",".join(dict.fromkeys(str(each["draft"] or Draft.none.value) for each in asked))
        raise BadInput(f"draft={others}: it takes no model; give draft=model, or leave draft.model out")
    return [
        both
        for each in asked
        for both in (
            [{**each, "draft_model": draft} for draft in drafts] if each["draft"] == Draft.model.value else [each]
        )
    ]


def _asked(settings: dict[str, Any], is_implied: bool) -> dict[str, Any]:
    draft = settings["draft"]
    name = draft.strip().lower() if isinstance(draft, str) else draft
    return {**settings, "draft": Draft.model.value if is_implied and name in (None, Draft.none.value) else name}


@contextmanager
def named_as_typed() -> Iterator[None]:
    """Within it, a `BadInput` about a key of a model is about that of its draft."""
    try:
        yield
    except BadInput as error:
        said = str(error)
        named = _KEY.sub(rf"{PREFIX}\1", said)
        raise BadInput(named if named != said else f"draft.model: {said}") from error
