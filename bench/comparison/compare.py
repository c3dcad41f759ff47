"""Two result sets, and what became better or worse. Pure: rows in, findings out.

What a card holds and how far it goes is deterministic: every difference is one, and a gate says how much is let pass.
Speeds are noisy: only what is significant and larger than the gate is a difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bench.comparison.pairing import AnyPair, AnyRefusal, Joined, Pair, join
from bench.comparison.speeds import SPEEDS, Speeds, compare_speeds
from bench.core.case import PAGE, Axis
from bench.core.columns import BoundaryRow, CaseRow, ResultRow
from bench.core.identity import is_simulated, key_of
from bench.core.outcome import ANSWERS, LimitBasis, Outcome
from bench.store.schema import Kind

# On a real card `peak_device_bytes` is NVML's highest reading, of all processes, now and then: not deterministic.
PEAKS = ("peak_allocated_bytes", "peak_reserved_bytes")
SIMULATED_PEAKS = (*PEAKS, "peak_device_bytes")


class Change(StrEnum):
    """Which way it went from BASE to HEAD."""

    WORSE = "worse"
    BETTER = "better"
    OTHER = "other"  # neither of the two
    UNDECIDED = "undecided"  # different, as far as known, but that is not enough to say


@dataclass(frozen=True)
class Slack:
    """How much of a change for the worse is let pass: the larger of so many `units` and `percent` of BASE."""

    units: float = 0
    percent: float = 0

    def lets_pass(self, loss: float, base: float) -> bool:
        """Whether a `loss`, in the unit of `base`, is small enough."""
        return loss <= max(self.units, self.percent / 100 * base)


@dataclass(frozen=True)
class Gates:
    """What fails a comparison. `vram_growth` is in bytes, `boundary_loss` in pages of 256 tokens."""

    vram_growth: Slack = field(default_factory=Slack)
    boundary_loss: Slack = field(default_factory=Slack)
    slowdown_percent: float = 5.0
    allow_missing: bool = False
    allow_driver_change: bool = False
    allow_model_change: bool = False


@dataclass(frozen=True)
class ResultSet:
    """The rows of one side, as they are stored: repeated, of several runs."""

    cases: Sequence[CaseRow] = ()
    boundaries: Sequence[BoundaryRow] = ()


@dataclass(frozen=True)
class Finding:
    """One difference in one column. `fails` where it is worse than its gate lets pass; `speeds` where it is a speed."""

    kind: Kind
    pair: AnyPair
    column: str
    base: Any
    head: Any
    change: Change
    fails: bool = False
    speeds: Speeds | None = None


@dataclass(frozen=True)
class Comparison:
    """All that there is to say of two result sets."""

    gates: Gates
    cases: Joined[CaseRow]
    boundaries: Joined[BoundaryRow]
    findings: list[Finding]

    @property
    def joined(self) -> dict[Kind, Joined[CaseRow] | Joined[BoundaryRow]]:
        """The pairs of rows, and those without a partner, by kind."""
        return {Kind.BOUNDARIES: self.boundaries, Kind.CASES: self.cases}

    @property
    def missing(self) -> list[ResultRow]:
        """The rows of BASE that HEAD has no partner of."""
        return [row for joined in self.joined.values() for row in joined.missing]

    @property
    def new(self) -> list[ResultRow]:
        """The rows of HEAD that BASE has no partner of."""
        return [row for joined in self.joined.values() for row in joined.new]

    @property
    def empty(self) -> bool:
        """Whether there was nothing to compare."""
        return not any(joined.pairs for joined in self.joined.values())

    @property
    def passed(self) -> bool:
        """Whether no gate fails: nothing is lost, refused or worse than it may be."""
        lost = any(joined.missing and not self.gates.allow_missing for joined in self.joined.values())
        refused = any(self.refusal_fails(each) for joined in self.joined.values() for each in joined.refused)
        return not (lost or refused or any(finding.fails for finding in self.findings))

    def refusal_fails(self, refusal: AnyRefusal) -> bool:
        """What is on another card is missing on this one; what is no longer the same fails in any case."""
        elsewhere = refusal.column in ("device_kind", "device_name", "device_uuid")
        return not (elsewhere and self.gates.allow_missing)


def compare(base: ResultSet, head: ResultSet, gates: Gates) -> Comparison:
    """Everything that differs between `base` and `head`: verdicts first, then boundaries, VRAM, speeds and the rest."""
    allowed = (gates.allow_driver_change, gates.allow_model_change)
    boundaries = join(base.boundaries, head.boundaries, *allowed)
    probes = _probes([*base.boundaries, *head.boundaries])
    cases = join(base.cases, head.cases, *allowed, probes)
    of_boundaries = [(pair, list(_of_boundary(pair, gates))) for pair in boundaries.pairs]
    moved = (answer.row for pair, findings in of_boundaries if findings for answer in (pair.base, pair.head))
    told = _probes(moved)
    found = [finding for _, findings in of_boundaries for finding in findings]
    found += [finding for pair in cases.pairs for finding in _of_case(pair, gates, told)]
    return Comparison(gates, cases, boundaries, sorted(found, key=lambda finding: _place(finding.column)))


def _probes(boundaries: Iterable[BoundaryRow]) -> frozenset[str]:
    """The ids of the cases that were run to find these boundaries."""
    return frozenset(case_id for row in boundaries for case_id in row["case_ids"] or [])


def reach(boundary: BoundaryRow) -> tuple[int, int | None]:
    """The shortest and the longest that `fits_at` can be, in tokens, by what was run; None where nothing failed."""
    low = boundary["fits_at"] or 0
    fails_at, native = boundary["fails_at"], boundary["native_max_seq_len"]
    if fails_at is not None:
        high = (fails_at - 1) // PAGE * PAGE
    elif (
        boundary["search_axis"] == Axis.CACHE_SIZE or boundary["native_max_seq_len_basis"] == LimitBasis.ENGINE_DEFAULT
    ):
        high = None  # the search ended where the engine's default does, which ends nothing else
    else:
        high = None if (boundary["searched_up_to"] or 0) > (native or 0) else native
    return low, None if high is None else max(low, high)


def _of_case(pair: Pair[CaseRow], gates: Gates, told: frozenset[str]) -> Iterator[Finding]:
    """`told` are the probes of boundaries that moved: that their verdicts changed is no further news."""
    base, head = pair.base.row, pair.head.row
    if base["case_id"] not in told and head["case_id"] not in told:
        yield from _verdict(Kind.CASES, pair)
    yield from _changed(Kind.CASES, pair, "attention")
    if base["outcome"] == head["outcome"] == Outcome.OOM:
        yield from _changed(Kind.CASES, pair, "phase")
    if base["outcome"] == head["outcome"] == Outcome.FITS:
        yield from _peaks(pair, gates)
        yield from _speeds(pair, gates)
        yield from _estimate(pair)


def _of_boundary(pair: Pair[BoundaryRow], gates: Gates) -> Iterator[Finding]:
    base, head = pair.base.row, pair.head.row
    yield from _verdict(Kind.BOUNDARIES, pair)
    yield from _changed(Kind.BOUNDARIES, pair, "attention")
    if not base["outcome"] == head["outcome"] == Outcome.FITS:
        return
    (base_low, base_high), (head_low, head_high) = reach(base), reach(head)
    values = (Kind.BOUNDARIES, pair, "fits_at", base["fits_at"], head["fits_at"])
    if head_high is not None and head_high < base_low:
        passes = gates.boundary_loss.lets_pass((base_low - head_high) / PAGE, base_low / PAGE)
        yield Finding(*values, Change.WORSE, not passes)
    elif base_high is not None and base_high < head_low:
        yield Finding(*values, Change.BETTER)
    elif (base_low, base_high) != (head_low, head_high):
        yield Finding(*values, Change.UNDECIDED)


def _verdict(kind: Kind, pair: AnyPair) -> Iterator[Finding]:
    base, head = pair.base.row["outcome"], pair.head.row["outcome"]
    if base != head:
        change = _direction(_badness(base), _badness(head))
        yield Finding(kind, pair, "outcome", base, head, change, change is Change.WORSE)


def _badness(outcome: str) -> int:
    """It fits; it is known that it does not; nothing is known."""
    return 0 if outcome == Outcome.FITS else 1 if outcome in ANSWERS else 2


def _changed(kind: Kind, pair: AnyPair, column: str) -> Iterator[Finding]:
    """A column of which neither value is better."""
    (base,), (head,) = key_of(pair.base.row, [column]), key_of(pair.head.row, [column])
    if base is not None and head is not None and base != head:
        yield Finding(kind, pair, column, base, head, Change.OTHER)


def _peaks(pair: Pair[CaseRow], gates: Gates) -> Iterator[Finding]:
    columns = SIMULATED_PEAKS if is_simulated(pair.head.row) else PEAKS
    for column in columns:
        (base,), (head,) = key_of(pair.base.row, [column]), key_of(pair.head.row, [column])
        if base == head:
            continue
        if base is None or head is None:
            yield Finding(Kind.CASES, pair, column, base, head, Change.UNDECIDED)
        else:
            fails = head > base and not gates.vram_growth.lets_pass(head - base, base)
            yield Finding(Kind.CASES, pair, column, base, head, _direction(base, head), fails)


def _speeds(pair: Pair[CaseRow], gates: Gates) -> Iterator[Finding]:
    for column in SPEEDS:
        speeds = compare_speeds(pair.base.same_run, pair.head.same_run, column)
        values = (Kind.CASES, pair, column, speeds.base, speeds.head)
        if speeds.base is None or speeds.head is None:
            if (speeds.base is None) != (speeds.head is None):
                yield Finding(*values, Change.UNDECIDED, speeds=speeds)
        elif speeds.apart(gates.slowdown_percent / 100):
            if speeds.significant:
                slower = speeds.head < speeds.base
                yield Finding(*values, Change.WORSE if slower else Change.BETTER, slower, speeds)
            elif not speeds.decidable:
                yield Finding(*values, Change.UNDECIDED, speeds=speeds)


def _estimate(pair: Pair[CaseRow]) -> Iterator[Finding]:
    """An estimate that changed says that the estimating did: it is told, and never gated."""
    base, head = (row["estimated_decode_tokens_per_s"] for row in (pair.base.row, pair.head.row))
    if base is not None and head is not None and not math.isclose(base, head, rel_tol=1e-6):
        yield Finding(Kind.CASES, pair, "estimated_decode_tokens_per_s", base, head, Change.OTHER)


def _direction(base: float, head: float) -> Change:
    """Of what is better the smaller it is."""
    return Change.WORSE if head > base else Change.BETTER if head < base else Change.OTHER


def _place(column: str) -> int:
    order = ("outcome", "fits_at", *SIMULATED_PEAKS, *SPEEDS)
    return order.index(column) if column in order else len(order)
