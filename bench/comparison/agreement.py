"""Measured rows beside others of the same configuration: where they agree, and by how much they do not.

The others are simulated ones; or measured ones under the same `vram_limit`, kept in the other way.
Rows are plain values in the columns of `results.schema`: None for null. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.comparison.matching import ASKED, SAME_TOTAL
from bench.comparison.pairing import made_at
from bench.core.columns import CARD, MODEL, ResultRow
from bench.core.identity import AnyRow, is_measured, is_simulated, key_of
from bench.store.schema import Kind

# What the two are held together in; all but the verdict in bytes, or in tokens.
VERDICTS = {Kind.CASES: ("outcome", "phase"), Kind.BOUNDARIES: ("outcome",)}
FIGURES = {
    Kind.CASES: ("peak_allocated_bytes", "peak_requested_bytes", "peak_reserved_bytes", "peak_device_bytes"),
    Kind.BOUNDARIES: ("fits_at", "fails_at"),
}


@dataclass(frozen=True)
class Agreement:
    """One question that both have answered. `differences`: the other less the measured; None where one does not know.

    Both unknown is left out: there is nothing to agree on.
    """

    measured: ResultRow
    other: ResultRow
    same_verdict: bool
    differences: dict[str, int | None]


@dataclass(frozen=True)
class Tally:
    """How one figure agrees over many questions: `equal` of `known`, and the largest difference either way."""

    figure: str
    known: int
    equal: int
    largest: int
    largest_share: float


@dataclass(frozen=True)
class Compared:
    """Each measured row once: beside its other one, or without."""

    kind: Kind
    agreements: list[Agreement]
    alone: list[ResultRow]

    @property
    def same_verdicts(self) -> int:
        """How many pairs have the same verdict."""
        return sum(agreement.same_verdict for agreement in self.agreements)

    def tallies(self) -> list[Tally]:
        """For each figure of this kind of row, how far the two sides are apart."""
        return [_tally(figure, self.agreements) for figure in FIGURES[self.kind]]


def compare_kinds(rows: Iterable[ResultRow], simulated: Iterable[ResultRow], kind: Kind) -> Compared:
    """The newest measured row of each question among `rows`, beside the newest of `simulated`.

    A simulated card stands for the real one of its name and about its memory; other weights than those that were
    measured are no answer.
    """
    ours = _newest((row for row in rows if is_measured(row)), CARD)
    theirs = _newest((row for row in simulated if is_simulated(row)), CARD)
    waiting: dict[Any, list[ResultRow]] = {}
    for row in theirs.values():
        waiting.setdefault((row["device_name"], _asked(row)), []).append(row)
    return _compared(
        {
            key: (row, _of_its_size(row, waiting.get((row["device_name"], _asked(row)), [])))
            for key, row in ours.items()
        },
        kind,
    )


def compare_limits(rows: Iterable[ResultRow], kind: Kind) -> Compared:
    """The smaller cards inside a real one: those that a process has kept small beside those of PyTorch's allocator."""
    limited = [row for row in rows if is_measured(row) and row["vram_limit_bytes"] is not None]
    held = _newest((row for row in limited if row["vram_limit_by"] == "process"), CARD, "vram_limit_by")
    capped = _newest((row for row in limited if row["vram_limit_by"] == "allocator"), CARD, "vram_limit_by")
    return _compared({key: (row, capped.get(key)) for key, row in held.items()}, kind)


def _compared(both: Mapping[Any, tuple[ResultRow, ResultRow | None]], kind: Kind) -> Compared:
    agreements = [_agreement(row, other, kind) for row, other in both.values() if other is not None]
    return Compared(kind, agreements, [row for row, other in both.values() if other is None])


def _of_its_size(row: ResultRow, others: Sequence[ResultRow]) -> ResultRow | None:
    """Of cards of one name, in the order of their time, the one whose memory is nearest, the newest of those alike."""
    total = row["device_total_bytes"]
    sizes = [(other, other["device_total_bytes"]) for other in others]
    if total is None:
        return others[-1] if others else None
    apart = [(abs(size - total) if size is not None else 0, other) for other, size in sizes]
    near = [
        (distance, -place, other) for place, (distance, other) in enumerate(apart) if distance <= SAME_TOTAL * total
    ]
    return min(near, key=lambda each: each[:2])[2] if near else None


def _newest(
    rows: Iterable[ResultRow], card: Sequence[str], but_for: str | None = None
) -> dict[tuple[Any, ...], ResultRow]:
    """By the columns `card` and by what is asked, `but_for` one column of that; in the order of their time."""
    newest: dict[tuple[Any, ...], ResultRow] = {}
    for row in sorted(rows, key=made_at):
        key = (key_of(row, card), _asked(row, but_for))
        newest.pop(key, None)
        newest[key] = row
    return newest


def _asked(row: ResultRow, but_for: str | None = None) -> tuple[Any, ...]:
    return key_of(_as_it_ran(row), [name for name in (*MODEL, *ASKED) if name != but_for])


def _as_it_ran(row: ResultRow) -> AnyRow:
    """What `auto` chooses depends on what is installed: a row is about the attention that ran."""
    return {**row, "attention_requested": row["attention"] or row["attention_requested"]}


def _agreement(measured: ResultRow, other: ResultRow, kind: Kind) -> Agreement:
    differences: dict[str, int | None] = {}
    for figure in FIGURES[kind]:
        (one,), (another,) = key_of(measured, [figure]), key_of(other, [figure])
        if one is not None and another is not None:
            differences[figure] = int(another) - int(one)
        elif one is not None or another is not None:
            differences[figure] = None
    same = key_of(measured, VERDICTS[kind]) == key_of(other, VERDICTS[kind])
    return Agreement(measured, other, same, differences)


def _tally(figure: str, agreements: Sequence[Agreement]) -> Tally:
    known = [
        (difference, int(key_of(agreement.measured, [figure])[0]))
        for agreement in agreements
        if (difference := agreement.differences.get(figure)) is not None
    ]
    return Tally(
        figure,
        known=len(known),
        equal=sum(difference == 0 for difference, _ in known),
        largest=max((difference for difference, _ in known), key=abs, default=0),
        largest_share=max((abs(difference) / real for difference, real in known if real), default=0.0),
    )
