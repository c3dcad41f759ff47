"""Which rows of two result sets answer the same question, and which only seem to.

Rows are plain values in the columns of `results.schema`: None for null. Everything here is pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.results.schema import Kind

Row = Mapping[str, Any]

# The question that a row answers. `attention_requested`, not what ran: that it ran with another back end is a finding.
QUESTION = (
    *("vram_limit_bytes", "vram_limit_by", "model", "bpw", "head_bits", "cache", "lazy", "attention_requested"),
    *("batch_size", "max_input_len", "max_seq_len"),
)
CARD = ("device_kind", "device_name")
# When the rows of a kind were made.
MOMENTS = {Kind.CASES: "started_at", Kind.BOUNDARIES: "finished_at"}
# One product has one memory; what CUDA and NVML call its total differs by a percent or two.
_SAME_TOTAL = 0.05


@dataclass(frozen=True)
class Answer:
    """What one result set says to one question: its newest row, and all rows to it from the newest row's run."""

    row: Row
    same_run: tuple[Row, ...]


@dataclass(frozen=True)
class Pair:
    """The answers of both result sets to one question."""

    base: Answer
    head: Answer


@dataclass(frozen=True)
class Refusal:
    """Two rows that cannot be compared, because they differ in `column`."""

    base: Row
    head: Row
    column: str


@dataclass(frozen=True)
class Joined:
    """Each question of either result set, once: compared, refused, or there in only one of them."""

    pairs: list[Pair]
    missing: list[Row]
    new: list[Row]
    refused: list[Refusal]


def join(
    base: Sequence[Row],
    head: Sequence[Row],
    kind: Kind,
    allow_driver_change: bool = False,
    probes: frozenset[str] = frozenset(),
) -> Joined:
    """Pairs the rows of two result sets of one kind.

    `probes` are the ids of the cases that were run to find a boundary: where the boundary moves they are others, so
    those without a partner are neither missing nor new.
    """
    several = _several_uuids(base) | _several_uuids(head)
    olds, news = (_answers(rows, MOMENTS[kind], several) for rows in (base, head))
    pairs, refused = [], []
    for key, old in olds.items():
        new = news.get(key)
        if new is None:
            continue
        column = _differing(old.row, new.row, allow_driver_change)
        if column is None:
            pairs.append(Pair(old, new))
        else:
            refused.append(Refusal(old.row, new.row, column))
    missing = [old.row for key, old in olds.items() if key not in news and old.row.get("case_id") not in probes]
    extra = [new.row for key, new in news.items() if key not in olds and new.row.get("case_id") not in probes]
    missing, extra, other_cards = _on_other_cards(missing, extra)
    return Joined(pairs, missing, extra, refused + other_cards)


def question(row: Row) -> tuple[Any, ...]:
    """All that identifies a case, or a boundary, but for the card."""
    return tuple(_comparable(row.get(name)) for name in QUESTION)


def _answers(rows: Iterable[Row], moment: str, several: set[Any]) -> dict[tuple[Any, ...], Answer]:
    grouped: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row[moment]):
        card = tuple(row[name] for name in CARD)
        key = (*card, row.get("device_uuid") if card in several else None, *question(row))
        grouped.setdefault(key, []).append(row)
    return {
        key: Answer(group[-1], tuple(row for row in group if row["run_id"] == group[-1]["run_id"]))
        for key, group in grouped.items()
    }


def _several_uuids(rows: Iterable[Row]) -> set[Any]:
    """Cards of which there are several of one name. They are told apart; a single one may be another tomorrow."""
    uuids: dict[Any, set[Any]] = {}
    for row in rows:
        uuids.setdefault(tuple(row[name] for name in CARD), set()).add(row.get("device_uuid"))
    return {card for card, known in uuids.items() if len(known - {None}) > 1}


def _differing(base: Row, head: Row, allow_driver_change: bool) -> str | None:
    """The column for which the two cannot be compared. What only one of them knows is no reason."""
    differs: dict[str, Callable[[Any, Any], bool]] = {
        "model_fingerprint": lambda old, new: old != new,
        "driver_version": lambda old, new: old != new and not allow_driver_change,
        "device_total_bytes": lambda old, new: abs(old - new) > _SAME_TOTAL * max(old, new),
    }
    for column, apart in differs.items():
        old, new = base.get(column), head.get(column)
        if old is not None and new is not None and apart(old, new):
            return column
    return None


def _on_other_cards(missing: list[Row], new: list[Row]) -> tuple[list[Row], list[Row], list[Refusal]]:
    """What is left of both after the questions that were answered on another card on the other side."""
    waiting: dict[tuple[Any, ...], list[Row]] = {}
    for row in new:
        waiting.setdefault(question(row), []).append(row)
    left, refused = [], []
    for row in missing:
        candidates = waiting.get(question(row))
        if candidates:
            refused.append(_refusal(row, candidates.pop(0)))
        else:
            left.append(row)
    return left, [row for rows in waiting.values() for row in rows], refused


def _refusal(base: Row, head: Row) -> Refusal:
    columns = (*CARD, "device_uuid")
    return Refusal(base, head, next(name for name in columns if base.get(name) != head.get(name)))


def _comparable(value: Any) -> Any:
    """NaN is not equal to itself; here it is as unknown as null."""
    return None if isinstance(value, float) and math.isnan(value) else value
