"""Which rows of two result sets answer the same question, and which only seem to.

Rows are plain values in the columns of `results.schema`: None for null. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from bench.comparison.matching import SAME_TOTAL, Matching
from bench.core.columns import CARD, BoundaryRow, CaseRow, ResultRow
from bench.core.identity import key_of

Row = TypeVar("Row", CaseRow, BoundaryRow)


@dataclass(frozen=True)
class Answer(Generic[Row]):
    """What one result set says to one question: its newest row, and all rows to it from the newest row's run."""

    row: Row
    same_run: tuple[Row, ...]


@dataclass(frozen=True)
class Pair(Generic[Row]):
    """The answers of both result sets to one question."""

    base: Answer[Row]
    head: Answer[Row]


AnyPair = Pair[CaseRow] | Pair[BoundaryRow]


@dataclass(frozen=True)
class Refusal(Generic[Row]):
    """Two rows that cannot be compared, because they differ in `column`."""

    base: Row
    head: Row
    column: str


AnyRefusal = Refusal[CaseRow] | Refusal[BoundaryRow]


@dataclass(frozen=True)
class Joined(Generic[Row]):
    """Each question of either result set, once: compared, refused, or there in only one of them."""

    pairs: list[Pair[Row]]
    missing: list[Row]
    new: list[Row]
    refused: list[Refusal[Row]]


def join(
    base: Sequence[Row],
    head: Sequence[Row],
    allow_driver_change: bool = False,
    allow_model_change: bool = False,
    probes: frozenset[str] = frozenset(),
) -> Joined[Row]:
    """Pairs the rows of two result sets, all of one kind.

    `probes` are the ids of the cases that were run to find a boundary: where the boundary moves they are others, so
    those without a partner are neither missing nor new.
    """
    matching = Matching(base, head, allow_model_change)
    olds, news = (_answers(rows, matching) for rows in (base, head))
    pairs: list[Pair[Row]] = []
    refused: list[Refusal[Row]] = []
    for key, old in olds.items():
        new = news.get(key)
        if new is None:
            continue
        column = _differing(old.row, new.row, allow_driver_change)
        if column is None:
            pairs.append(Pair(old, new))
        else:
            refused.append(Refusal(old.row, new.row, column))
    missing = [
        old.row for key, old in olds.items() if key not in news and key_of(old.row, ["case_id"])[0] not in probes
    ]
    extra = [new.row for key, new in news.items() if key not in olds and key_of(new.row, ["case_id"])[0] not in probes]
    missing, extra, others = _seemingly_the_same(missing, extra, matching)
    return Joined(pairs, missing, extra, refused + others)


def made_at(row: ResultRow) -> datetime:
    """When a case was started, or a boundary found."""
    moment: datetime = next(filter(None, key_of(row, ("finished_at", "started_at"))))
    return moment


def _answers(rows: Iterable[Row], matching: Matching) -> dict[tuple[Any, ...], Answer[Row]]:
    grouped: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=made_at):
        grouped.setdefault(matching.key(row), []).append(row)
    return {
        key: Answer(group[-1], tuple(row for row in group if row["run_id"] == group[-1]["run_id"]))
        for key, group in grouped.items()
    }


def _differing(base: ResultRow, head: ResultRow, allow_driver_change: bool) -> str | None:
    """The column for which the two cannot be compared. What only one of them knows is no reason."""
    drivers = {base["driver_version"], head["driver_version"]} - {None}
    if len(drivers) > 1 and not allow_driver_change:
        return "driver_version"
    old, new = base["device_total_bytes"], head["device_total_bytes"]
    if old is not None and new is not None and abs(old - new) > SAME_TOTAL * max(old, new):
        return "device_total_bytes"
    return None


def _seemingly_the_same(
    missing: list[Row], new: list[Row], matching: Matching
) -> tuple[list[Row], list[Row], list[Refusal[Row]]]:
    """What is left of both after the questions that were answered for another model of the same name, or on another
    card, on the other side.
    """
    waiting: dict[tuple[Any, ...], list[Row]] = {}
    for row in new:
        waiting.setdefault(matching.asked(row), []).append(row)
    left: list[Row] = []
    refused: list[Refusal[Row]] = []
    for row in missing:
        among = waiting.get(matching.asked(row), [])
        alike = [other for other in among if _is_seemingly(row, other, matching)]
        if alike:
            nearest = min(alike, key=lambda other: len(_differences(row, other)))
            among[:] = [other for other in among if other is not nearest]
            refused.append(Refusal(row, nearest, _differences(row, nearest)[0]))
        else:
            left.append(row)
    return left, [row for rows in waiting.values() for row in rows], refused


def _is_seemingly(row: ResultRow, other: ResultRow, matching: Matching) -> bool:
    has_its_name = row["model"] == other["model"] and not matching.allow_model_change
    return has_its_name or matching.model(row) == matching.model(other)


def _differences(row: ResultRow, other: ResultRow) -> list[str]:
    """The columns of the card, then of the model, that differ; what only one of them knows counts where nothing else
    does.
    """
    columns = (*CARD, "model_fingerprint")
    values = zip(columns, key_of(row, columns), key_of(other, columns), strict=True)
    differing = [(name, None in (old, new)) for name, old, new in values if old != new]
    return [name for name, is_unknown in differing if not is_unknown] or [name for name, _ in differing]
