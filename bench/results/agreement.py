"""Measured rows beside others of the same configuration: where they agree, and by how much they do not.

The others are simulated ones; or measured ones under the same `vram_limit`, kept in the other way.
Rows are plain values in the columns of `results.schema`: None for null. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.results.pairing import MOMENTS, Row, question
from bench.results.schema import Kind

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

    measured: Row
    other: Row
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
    alone: list[Row]

    @property
    def same_verdicts(self) -> int:
        return sum(agreement.same_verdict for agreement in self.agreements)

    def tallies(self) -> list[Tally]:
        return [_tally(figure, self.agreements) for figure in FIGURES[self.kind]]


def compare_kinds(rows: Iterable[Row], simulated: Iterable[Row], kind: Kind) -> Compared:
    """The newest measured row of each question among `rows`, beside the newest of `simulated`.

    A simulated card stands for the real one of its name; other weights than those that were measured are no answer.
    """
    ours = _newest((row for row in rows if row["device_kind"] == "cuda"), kind)
    theirs = _newest((row for row in simulated if row["device_kind"] == "simulated"), kind)
    return _compared(ours, theirs, kind)


def compare_limits(rows: Iterable[Row], kind: Kind) -> Compared:
    """The smaller cards inside a real one: those that a process has kept small beside those of PyTorch's allocator."""
    limited = [row for row in rows if row["device_kind"] == "cuda" and row.get("vram_limit_bytes") is not None]
    held = _newest((row for row in limited if row.get("vram_limit_by") == "process"), kind, "vram_limit_by")
    capped = _newest((row for row in limited if row.get("vram_limit_by") == "allocator"), kind, "vram_limit_by")
    return _compared(held, capped, kind)


def _compared(ours: dict[Any, Row], theirs: dict[Any, Row], kind: Kind) -> Compared:
    agreements = [_agreement(row, theirs[key], kind) for key, row in ours.items() if key in theirs]
    return Compared(kind, agreements, [row for key, row in ours.items() if key not in theirs])


def _newest(rows: Iterable[Row], kind: Kind, but_for: str | None = None) -> dict[tuple[Any, ...], Row]:
    """By what is asked, `but_for` one column of that."""
    ordered = sorted(rows, key=lambda row: row[MOMENTS[kind]])

    def asked(row: Row) -> Row:
        return {name: value for name, value in _as_it_ran(row).items() if name != but_for}

    return {(row["device_name"], row.get("model_fingerprint"), question(asked(row))): row for row in ordered}


def _as_it_ran(row: Row) -> Row:
    """What `auto` chooses depends on what is installed: a row is about the attention that ran."""
    return {**row, "attention_requested": row.get("attention") or row.get("attention_requested")}


def _agreement(measured: Row, other: Row, kind: Kind) -> Agreement:
    differences: dict[str, int | None] = {}
    for figure in FIGURES[kind]:
        one, another = measured.get(figure), other.get(figure)
        if one is not None and another is not None:
            differences[figure] = int(another) - int(one)
        elif one is not None or another is not None:
            differences[figure] = None
    same = all(measured.get(name) == other.get(name) for name in VERDICTS[kind])
    return Agreement(measured, other, same, differences)


def _tally(figure: str, agreements: Sequence[Agreement]) -> Tally:
    known = [
        (difference, int(agreement.measured[figure]))
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
