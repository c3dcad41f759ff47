"""What tells rows apart, and what a case's row will have in those columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from bench.core.case import Case
from bench.core.columns import CARD, IDENTITY, CaseRow, declared

# Whose rows told no more of a simulated card than its name and its memory.
_FIRST_TO_TELL_CARDS = 3
_TOLD = tuple(column.name for column in declared(CaseRow) if column.about.simulated_only)

Row = Mapping[str, Any]


_SOURCES = {
    column.name: (attrgetter(column.about.of), column.about.simulated_only)
    for column in declared(CaseRow)
    if column.name in IDENTITY
}


def identity_of(case: Case) -> dict[str, Any]:
    """The columns of `IDENTITY` of a case, as its row will have them."""
    is_simulated = case.device.kind == "simulated"
    return {
        name: None if simulated_only and not is_simulated else value_of(case)
        for name, (value_of, simulated_only) in _SOURCES.items()
    }


def key_of(row: Row, columns: Sequence[str]) -> tuple[Any, ...]:
    """The values of `columns` as a key: what is unknown is None, whatever the row has in its place."""
    return tuple(known(row.get(column)) for column in columns)


def known(value: Any) -> Any:
    """The value, or None where it is missing: NaN is not equal to itself, and pandas has several ways to say null."""
    if value is None or type(value).__name__ == "NAType" or value != value:
        return None
    return value


def completed(cards: Iterable[Row]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """What the other cards tell of those that are not told in full, by the card's key (`CARD`, then schema_version).

    `cards` have the columns of `CARD` and schema_version. Rows of older programs told little of a simulated card, and a
    case on a real GPU may die before CUDA says how much memory there is. Where exactly one card agrees with all that is
    told, it is that card; where several do, nobody knows.
    """
    distinct = {key_of(card, (*CARD, "schema_version")): card for card in cards}
    full = {key[:-1]: card for key, card in distinct.items() if not _untold(card)}
    found = {}
    for key, card in distinct.items():
        untold = _untold(card)
        others = [
            other for other in full.values() if _agree(card, other, [name for name in CARD if name not in untold])
        ]
        if untold and len(others) == 1:
            found[key] = {name: others[0].get(name) for name in untold}
    return found


def _untold(card: Row) -> list[str]:
    if card.get("device_kind") != "simulated":
        return [] if known(card.get("device_total_bytes")) is not None else ["device_total_bytes"]
    version = known(card.get("schema_version"))
    return list(_TOLD) if version is not None and version < _FIRST_TO_TELL_CARDS else []


def _agree(card: Row, other: Row, columns: Sequence[str]) -> bool:
    return key_of(card, columns) == key_of(other, columns)
