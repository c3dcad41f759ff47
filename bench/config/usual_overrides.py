"""Overrides as most people type them: names, numbers, sizes and paths, and several of one key with commas between.

They mean what Hydra's grammar makes of them, which a test says of any text; read here they take microseconds, and Hydra
need not even be imported. What has anything else in it is not read here, but by Hydra (overrides.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from bench.config import machines
from bench.config.catalogue import GROUPS, NODES, Catalogue, own_file
from bench.config.group_names import is_all, names_of
from bench.config.settings import DeviceSettings, ModelSettings, Settings
from bench.config.typed import LISTS, is_text, words_of

EXPERIMENT = "experiment"
_OF_NODES = {"model": ModelSettings, "device": DeviceSettings}
# Keys of one value each. `draft_model` is composed apart (drafts.py), and the cards of a machine are in no file.
KEYS = {each.name for each in fields(Settings)} - {*GROUPS, "draft_model"} | {
    f"{node}.{each.name}"
    for node, schema in _OF_NODES.items()
    for each in fields(schema)
    if (each.default_factory is MISSING or each.name == "index") and each.name != "cards"
}
_TEXT = re.compile(r"[\w./+~:@#{}-]+", re.ASCII)  # where quotes are put around it, as `typed.py` does
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_POINT = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WITH_UNIT = re.compile(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([kKmM]|[KMG]i?B|bpw)")
_WORDS = {"true": True, "false": False, "null": None}
_NUMBERS = ("inf", "nan")


class Given(NamedTuple):
    """What is typed of one key; an axis has several `values`."""

    key: str
    values: tuple[Any, ...]


class UnusualError(Exception):
    """It is for Hydra to read, or to refuse."""


def read(overrides: Sequence[str], catalogue: Catalogue) -> dict[str, Given]:
    """`overrides` by their keys, in their order, with the names of files looked up.

    Raises `UnusualError` for what is not read here, and `BadInput` for machines that cannot be.
    """
    found = [_read(text) for text in overrides]
    by_key = {each.key: each for each in found}
    if len(by_key) < len(found):
        raise UnusualError
    for text, each in zip(overrides, found, strict=True):
        if each.key in GROUPS:
            by_key[each.key] = Given(each.key, tuple(_names(text, each, catalogue)))
    return by_key


def _read(text: str) -> Given:
    key, equals, value = text.partition("=")
    if not equals or key not in (*GROUPS, *KEYS):
        raise UnusualError
    if not is_text(key):
        values = tuple(map(_primitive, value.split(",")))
        return Given(key, ([*values],) if key in LISTS and len(values) > 1 else values)
    words = [*words_of(key, value)]
    if not all(_TEXT.fullmatch(word) for word, _ in words):
        raise UnusualError
    return Given(key, tuple(None if is_null else word for word, is_null in words))  # in quotes is none of them


def _primitive(word: str) -> Any:
    if (small := word.lower()) in _WORDS:
        return _WORDS[small]
    if _WHOLE.fullmatch(word):
        return int(word)
    if _POINT.fullmatch(word):
        return float(word)
    if (_NAME.fullmatch(word) and small not in _NUMBERS) or _WITH_UNIT.fullmatch(word):
        return word
    raise UnusualError


def _names(text: str, given: Given, catalogue: Catalogue) -> list[str]:
    """The files that are named; each is there. Several cards are one device of the catalogue's from here on."""
    group, asked = given
    if group == EXPERIMENT and len(asked) > 1:
        raise UnusualError
    if len(asked) == 1 and is_all(group, asked[0], catalogue):
        asked = tuple(catalogue.known(group))
    names = []
    for name in names_of(group, asked, text, catalogue):
        if group == "device" and machines.is_machine(name, catalogue):
            names.append(machines.adopt(name, catalogue))
        elif own_file(group, name) is None and catalogue.find(group, name) is not None:
            names.append(name)
        else:
            raise UnusualError
    return names


def node_of(key: str) -> str | None:
    """The node that has a key; None for a key of the whole."""
    node, dot, _ = key.partition(".")
    return node if dot and node in NODES else None
