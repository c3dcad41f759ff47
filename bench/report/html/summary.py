"""What a set of rows is of: which cards, and on which machines with which versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.core.columns import CARD, LIMIT, MODEL
from bench.core.identity import is_simulated, key_of
from bench.core.identity_columns import CardColumns, MachineColumns, NamedColumns
from bench.engines.registry import engines
from bench.report.naming.models import Names
from bench.report.rows import rows_of
from bench.report.text.plain_table import CardKey, card_key

_ENGINES = [engine.version_column for engine in engines()]
_SOFTWARE = [*_ENGINES, "torch_version", "cuda_version", "driver_version", "harness_version"]
_CARD = [*CARD, *LIMIT]
_NAMES = [name.removesuffix("_version") for name in _SOFTWARE]
_MACHINE = ["host", *CARD, *_SOFTWARE]


class _Counted(NamedColumns):
    """A card and a model, and how many rows they have."""

    cases: int | None
    boundaries: int | None
    first: pd.Timestamp
    last: pd.Timestamp


class _Ran(CardColumns, MachineColumns):
    """A card on a machine with its versions, and how many rows were made there."""

    rows: int


@dataclass(frozen=True, kw_only=True)
class Card:
    """One card; simulated and real ones are never the same."""

    key: CardKey
    title: str
    simulated: bool
    models: list[str]
    cases: int
    boundaries: int
    first: pd.Timestamp
    last: pd.Timestamp


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One machine with one set of versions, and the cards that were run there; unknown is None."""

    host: str | None
    simulated: bool
    cards: list[str]
    versions: dict[str, str | None]
    rows: int


def cards(cases: pd.DataFrame, boundaries: pd.DataFrame, names: Names) -> list[Card]:
    """Every card of the rows, real ones first, small ones before large ones."""
    columns = [*_CARD, *MODEL]
    counted = pd.concat(
        [_counted(cases, columns, "started_at", "cases"), _counted(boundaries, columns, "finished_at", "boundaries")]
    )
    found: dict[tuple[Any, ...], list[_Counted]] = {}
    for row in rows_of(counted, _Counted):
        found.setdefault(key_of(row, _CARD), []).append(row)
    ordered = sorted(found.values(), key=_place)
    return [_card(rows, names) for rows in ordered]


def environments(cases: pd.DataFrame, boundaries: pd.DataFrame, names: Names) -> list[Environment]:
    """Every machine and set of versions of the rows, the most rows first."""
    counted = pd.concat(
        [_counted(cases, _MACHINE, "started_at", "rows"), _counted(boundaries, _MACHINE, "finished_at", "rows")]
    )
    found: dict[tuple[Any, ...], list[_Ran]] = {}
    for row in rows_of(counted, _Ran):
        same = (row["host"], row["device_kind"], *key_of(row, _SOFTWARE))
        found.setdefault(same, []).append(row)
    told = [
        Environment(
            host=rows[0]["host"],
            simulated=is_simulated(rows[0]),
            cards=sorted({_named(row, names) for row in rows}),
            versions=dict(zip(_NAMES, key_of(rows[0], _SOFTWARE), strict=True)),
            rows=sum(row["rows"] for row in rows),
        )
        for rows in found.values()
    ]
    return sorted(told, key=lambda environment: -environment.rows)


def _counted(frame: pd.DataFrame, names: Sequence[str], moment: str, count: str) -> pd.DataFrame:
    """The distinct values of `names`, how many rows have them (`count`), and when the `first` and the `last` was."""
    if frame.empty:
        return pd.DataFrame(columns=[*names, count, "first", "last"])
    # Rows come by time; what they name are few distinct values, and categories are counted fast.
    few = {name: frame[name].astype("category") for name in names}
    groups = frame[[moment]].assign(**few).groupby(list(names), dropna=False, observed=True, sort=False)[moment]
    counted = pd.DataFrame({count: groups.size(), "first": groups.min(), "last": groups.max()}).reset_index()
    return counted.astype(dict.fromkeys(names, object))


def _place(rows: list[_Counted]) -> tuple[Any, ...]:
    first = rows[0]
    total = first["vram_limit_bytes"] or first["device_total_bytes"] or 0
    return first["device_kind"], total, first["device_name"], first["device_uuid"] or ""


def _card(rows: list[_Counted], names: Names) -> Card:
    first = rows[0]
    return Card(
        key=card_key(first),
        title=names.card_title(first),
        simulated=is_simulated(first),
        models=sorted({names.model(row) for row in rows}),
        cases=int(sum(row["cases"] or 0 for row in rows)),
        boundaries=int(sum(row["boundaries"] or 0 for row in rows)),
        first=min(row["first"] for row in rows),
        last=max(row["last"] for row in rows),
    )


def _named(row: CardColumns, names: Names) -> str:
    called = names.card(row)
    capability = f"compute capability {row['compute_capability']}"
    return called if row["compute_capability"] is None or capability in called else f"{called}, {capability}"
