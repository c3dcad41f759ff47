"""Dataclasses as JSON and back: how parent and child write down what they send each other.

A field may be a string, a number, a path, an enumeration, a dataclass, a list, tuple or dictionary of these, or None.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_KIND = "kind"


def to_json(record: Any) -> str:
    """A dataclass as one line of JSON."""
    return json.dumps(vars(record), default=_plain)


def from_json(kind: type[T], text: str | bytes) -> T:
    """The dataclass `kind` that `to_json` wrote. Raises ValueError as `decode` does."""
    return _dataclass(kind, _parsed(text), kind.__name__)


def encode(record: Any) -> str:
    """A dataclass as one line of JSON that also says which class it is."""
    return json.dumps({_KIND: type(record).__name__, **vars(record)}, default=_plain)


def decode(text: str | bytes, kinds: Mapping[str, type[T]]) -> T:
    """The dataclass that `encode` wrote, one of `kinds`, each under its name.

    Fields that its class lacks are of a newer program, and are left out. Raises ValueError, which names the field, for
    text that is no JSON, a kind that is none of `kinds`, a field that is missing and has no default, and a value of
    another type than the field's.
    """
    document = _parsed(text)
    name = document.get(_KIND) if isinstance(document, dict) else None
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"{name!r} is none of {', '.join(kinds)}")
    return _dataclass(kinds[name], document, name)


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value):
        return vars(value)
    raise TypeError(f"{type(value).__name__} is nothing that is sent")


@cache
def _fields(kind: type) -> list[tuple[str, Any, bool]]:
    """Of each field its name, its type, and whether it must be there."""
    types = get_type_hints(kind)
    missing = dataclasses.MISSING
    return [
        (each.name, types[each.name], each.default is missing and each.default_factory is missing)
        for each in dataclasses.fields(kind)
    ]


def _dataclass(kind: type[T], document: Any, where: str) -> T:
    if not isinstance(document, dict):
        raise ValueError(f"{where}: {document!r:.100} is no {kind.__name__}")
    values = {}
    for name, type_, required in _fields(kind):  # type: ignore[arg-type]  # a class is hashable
        if name in document:
            values[name] = _value(type_, document[name], f"{where}.{name}")
        elif required:
            raise ValueError(f"{where}.{name} is missing")
    return kind(**values)


def _value(type_: Any, value: Any, where: str) -> Any:
    """`value`, out of JSON, as `type_`."""
    if type_ is Any:
        return value
    origin, arguments = get_origin(type_), get_args(type_)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        (type_,) = (each for each in arguments if each is not NoneType)
        return _value(type_, value, where)
    if origin in (list, tuple) and isinstance(value, list):  # a tuple is one of any length: tuple[T, ...]
        return origin(_value(arguments[0], each, where) for each in value)
    if origin is dict and isinstance(value, dict):
        return value if arguments[1] is Any else {key: _value(arguments[1], value[key], where) for key in value}
    if dataclasses.is_dataclass(type_):
        return _dataclass(type_, value, where)  # type: ignore[arg-type]
    if isinstance(type_, type) and issubclass(type_, (Enum, Path)) and isinstance(value, str):
        return type_(value)
    allowed = (int, float) if type_ is float else type_
    if origin is None and isinstance(value, allowed) and (type_ is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{where}: {value!r:.100} is no {type_}")
