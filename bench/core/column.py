"""What is said of a column of the stored rows, and how a row declares it: a field annotated with a `Column`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple, get_args, get_type_hints


class Role(StrEnum):
    """What a column has to do with the others of its row."""

    RECORD = "record"  # which row it is, of which run, and when it was made
    MACHINE = "machine"  # where it was made, and with which software
    CARD = "card"  # what the card is
    LIMIT = "limit"  # how much of the card is used, and who keeps to that
    MODEL = "model"  # what the model is: its fingerprint, as several may have one name
    SETTING = "setting"  # how the model is run: what a user can choose
    LENGTH = "length"  # tokens
    OUTCOME = "outcome"  # how it ended
    SIZE = "size"
    PART = "part"  # the size of one part, where the memory in use was highest
    SPEED = "speed"
    DOCUMENT = "document"  # a whole document, or every sample: no table shows it


@dataclass(frozen=True)
class Column:
    """What is said of a column beside its name and its Python type.

    `unit` is bytes, s, tokens/s, ...; `storage` is its type in parquet where its Python type does not decide that. `of`
    is where a `Case` has it, for the columns that tell rows apart; `usual` is a setting's default (else that of the
    field of `Case`); `simulated_only` ones describe a simulated card, and are null of a real one. A file of an older
    program may lack a column that came `later`: all of its rows had the value `before`, which is null unless there was
    only one that they could have. `renamed` has its values that older programs wrote, each with what it is called now.
    """

    role: Role
    doc: str
    unit: str = ""
    of: str = ""
    storage: str = ""
    label: str = ""
    simulated_only: bool = False
    later: bool = False
    before: int | str | None = None
    renamed: tuple[tuple[str, str], ...] = ()
    usual: str | int | None = None


class Declared(NamedTuple):
    """A column as it is declared: its name, its Python type without None, whether it may be null, and the rest."""

    name: str
    type: Any
    nullable: bool
    about: Column


@cache
def declared(row: type) -> tuple[Declared, ...]:
    """The columns of `CaseRow` or `BoundaryRow`, in their order."""
    hints = get_type_hints(row, include_extras=True)
    found = []
    for name in row.__annotations__:
        annotated, about = get_args(hints[name])
        nullable = type(None) in get_args(annotated)
        plain = next(each for each in get_args(annotated) if each is not type(None)) if nullable else annotated
        found.append(Declared(name, plain, nullable, about))
    return tuple(found)


def names_of(row: type, *roles: Role) -> tuple[str, ...]:
    """The names of the columns of `row` that have one of `roles`."""
    return tuple(column.name for column in declared(row) if column.about.role in roles)
