"""What tells rows apart, and what a case's row will have in those columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, cast

from bench.core.case import Case
from bench.core.column import declared
from bench.core.columns import CARD, IDENTITY, SETTING, CaseRow
from bench.core.device import SIMULATED
from bench.core.identity_columns import CardColumns, IdentityColumns, SettingColumns

# Whose rows told no more of a simulated card than its name and its memory.
_FIRST_TO_TELL_CARDS = 3
_TOLD = tuple(column.name for column in declared(CaseRow) if column.about.simulated_only)

# A row of any kind, whose columns are taken by the names that this registry gives.
AnyRow = Mapping[str, object]


_SOURCES = {
    column.name: (attrgetter(column.about.of), column.about.simulated_only)
    for column in declared(CaseRow)
    if column.name in IDENTITY
}


# How a case is asked each of its settings, by their columns.
SETTINGS_OF = {name: _SOURCES[name][0] for name in SETTING}
_FIELDS = {
    column.name: column.about.of
    for column in declared(CaseRow)
    if column.name in SETTING and column.about.of in Case.__dataclass_fields__
}


def identity_of(case: Case) -> IdentityColumns:
    """The columns of `IDENTITY` of a case, as its row will have them."""
    is_simulated = case.device.is_simulated
    values = {
        name: None if simulated_only and not is_simulated else value_of(case)
        for name, (value_of, simulated_only) in _SOURCES.items()
    }
    return cast(IdentityColumns, values)


def settings_of(row: SettingColumns) -> dict[str, Any]:
    """The settings of a row under the names that a `Case` has for them, without those that the row does not tell.

    A draft model is none: a row has its name, and no config.json.
    """
    told: AnyRow = row
    return {field: value for name, field in _FIELDS.items() if (value := known(told.get(name))) is not None}


def is_simulated(row: CardColumns) -> bool:
    """Whether the row is of a simulated card; the two kinds are never pooled."""
    return row["device_kind"] == SIMULATED


def is_measured(row: CardColumns) -> bool:
    """Whether the row is of a card that was there; one that does not say its kind is neither."""
    return row["device_kind"] not in (SIMULATED, None)


def limit_of(card: CardColumns) -> int | None:
    """The bytes of a row's card, or of the smaller one inside it; None where they are unknown."""
    total, limit = card["device_total_bytes"], card["vram_limit_bytes"]
    return limit if total is None else min(total, limit or total)


def key_of(row: AnyRow, columns: Sequence[str]) -> tuple[Any, ...]:
    """The values of `columns` as a key: what is unknown is None, whatever the row has in its place."""
    return tuple([known(row.get(column)) for column in columns])


def known(value: Any) -> Any:
    """The value, or None where it is missing: NaN is not equal to itself, and pandas has several ways to say null."""
    if value is None or type(value).__name__ == "NAType" or value != value:
        return None
    return value


def completed(cards: Iterable[AnyRow]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """What the other cards tell of those that are not told in full, by the card's key (`CARD`, then schema_version).

    `cards` have the columns of `CARD` and schema_version. Rows of older programs told little of a simulated card, and a
    case on a real GPU may die before CUDA says how much memory there is. Where exactly one card agrees with all that is
    told, it is that card; where several do, it is unknown.
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


def _untold(card: AnyRow) -> list[str]:
    if card.get("device_kind") != SIMULATED:
        return [] if known(card.get("device_total_bytes")) is not None else ["device_total_bytes"]
    version = known(card.get("schema_version"))
    return list(_TOLD) if version is not None and version < _FIRST_TO_TELL_CARDS else []


def _agree(card: AnyRow, other: AnyRow, columns: Sequence[str]) -> bool:
    return key_of(card, columns) == key_of(other, columns)
