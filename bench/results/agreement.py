"""Measured rows beside simulated rows of the same configuration: where they agree, and by how much they do not.

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
    """One question that both have answered. `differences`: simulated less measured; None where one does not know.

    Both unknown is left out: there is nothing to agree on.
    """

    measured: Row
    simulated: Row
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
    """Each measured row once: beside its simulated one, or without."""

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
    agreements = [_agreement(row, theirs[key], kind) for key, row in ours.items() if key in theirs]
    return Compared(kind, agreements, [row for key, row in ours.items() if key not in theirs])


def _newest(rows: Iterable[Row], kind: Kind) -> dict[tuple[Any, ...], Row]:
    ordered = sorted(rows, key=lambda row: row[MOMENTS[kind]])
    return {(row["device_name"], row.get("model_fingerprint"), question(_as_it_ran(row))): row for row in ordered}


def _as_it_ran(row: Row) -> Row:
    """What `auto` chooses depends on what is installed: a row is about the attention that ran."""
    return {**row, "attention_requested": row.get("attention") or row.get("attention_requested")}


def _agreement(measured: Row, simulated: Row, kind: Kind) -> Agreement:
    differences: dict[str, int | None] = {}
    for figure in FIGURES[kind]:
        real, made_up = measured.get(figure), simulated.get(figure)
        if real is not None and made_up is not None:
            differences[figure] = int(made_up) - int(real)
        elif real is not None or made_up is not None:
            differences[figure] = None
    same = all(measured.get(name) == simulated.get(name) for name in VERDICTS[kind])
    return Agreement(measured, simulated, same, differences)


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
