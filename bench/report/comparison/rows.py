"""The cells of one finding: what was, what is, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from bench.comparison.compare import Change, Finding, reach
from bench.core.case import PAGE
from bench.core.columns import PARTS, BoundaryRow, ResultRow
from bench.core.identity import key_of
from bench.core.outcome import Outcome
from bench.report.text.units import percent_change, rate, size, size_change, tokens
from bench.report.text.verdicts import stored

_MOST_CHARACTERS = 120  # of an error
_SPEED_NAMES = {
    "prefill_tokens_per_s": "prefill tok/s",
    "decode_tokens_per_s": "decode tok/s",
    "decode_tokens_per_s_full": "decode tok/s, full",
}
_OTHER_NAMES = {
    "phase": "the phase that ran out",
    "attention": "attention that ran",
    "estimated_decode_tokens_per_s": "estimated tok/s",
}


def verdict_row(finding: Finding) -> list[str]:
    """The verdicts, and the error of the one that is worse, or what it lacks."""
    base, head = finding.pair.base.row, finding.pair.head.row
    worse = base if finding.change is Change.BETTER else head
    error, advice = key_of(worse, ("error", "advice"))
    return [_verdict(base), _verdict(head), _short(error or advice or "")]


def boundary_row(finding: Finding) -> list[str]:
    """The lengths; one that is not certified has a question mark, and says how far it may go."""
    base, head = (cast(BoundaryRow, answer.row) for answer in (finding.pair.base, finding.pair.head))
    lengths = [f"{tokens(row['fits_at'])}{'' if row['certified'] else '?'}" for row in (base, head)]
    old, new = base["fits_at"] or 0, head["fits_at"] or 0
    if finding.change is Change.UNDECIDED:
        doubts = [
            f"{side} not certified, {_reach(row)}"
            for side, row in (("BASE", base), ("HEAD", head))
            if not row["certified"]
        ]
        return [*lengths, "–", "; ".join(doubts)]
    count = (new - old) / PAGE
    unit = "page" if abs(count) == 1 else "pages"
    return [*lengths, f"{new - old:+,} ({percent_change(old, new)})", f"{count:+.4g} {unit}"]


def peaks_row(findings: Sequence[Finding]) -> list[str]:
    """The peak that fails, or the first; what else moved with it: the other peaks, and the parts in use."""
    first = next((finding for finding in findings if finding.fails), findings[0])
    rest = [finding for finding in findings if finding is not first and None not in (finding.base, finding.head)]
    also = [f"{_peak_name(finding)} {size_change(finding.head - finding.base)}" for finding in rest]
    base, head = first.base, first.head
    change = "–" if None in (base, head) else f"{size_change(head - base)} ({percent_change(base, head)})"
    parts = _parts(first.pair.base.row, first.pair.head.row)
    return [_peak_name(first), size(base), size(head), change, "; ".join(filter(None, [", ".join(also), parts]))]


def speed_row(finding: Finding) -> list[str]:
    """Medians, and what says whether they differ."""
    speeds = finding.speeds
    assert speeds is not None  # of a speed there always are
    counts = f"{speeds.base_count} and {speeds.head_count} samples"
    basis = f"p = {speeds.p_value:.2g}, {counts}" if speeds.p_value is not None else counts
    if finding.change is Change.UNDECIDED:
        basis = f"{counts} are too few to tell; repeats=5 has enough"
    known = finding.base is not None and finding.head is not None
    change = percent_change(finding.base, finding.head) if known else "–"
    return [_SPEED_NAMES[finding.column], rate(finding.base), rate(finding.head), change, basis]


def other_row(finding: Finding) -> list[str]:
    """The cells of a finding that has a table of its own: what it is about, BASE, HEAD."""
    return [_OTHER_NAMES[finding.column], *(_plain(value) for value in (finding.base, finding.head))]


def _verdict(row: ResultRow) -> str:
    """`fits`, `oom in cache`, `fits to 8,192`."""
    told = row["outcome"]
    fits_at, phase = key_of(row, ("fits_at", "phase"))
    if fits_at is not None:
        return f"{told} to {tokens(fits_at)}" if told == Outcome.FITS else f"{told}, {tokens(fits_at)} fits"
    if told == Outcome.OOM and "case_ids" in row:
        return "nothing fits"
    return stored(told, phase)


def _reach(boundary: BoundaryRow) -> str:
    low, high = reach(boundary)
    return f"from {tokens(low)}" + (" on" if high is None else f" to {tokens(high)}")


def _peak_name(finding: Finding) -> str:
    return finding.column.removeprefix("peak_").removesuffix("_bytes")


def _parts(base: ResultRow, head: ResultRow) -> str:
    """`cache +30.0 MiB, logits -1.0 MiB`: the two parts that changed most."""
    sizes = zip(PARTS, key_of(base, PARTS), key_of(head, PARTS), strict=True)
    changes = {name: after - before for name, before, after in sizes if before is not None and after is not None}
    largest = sorted((name for name in changes if changes[name]), key=lambda name: -abs(changes[name]))[:2]
    told = [f"{name.removesuffix('_bytes')} {size_change(changes[name])}" for name in largest]
    return f"of it {', '.join(told)}" if told else ""


def _short(text: str) -> str:
    first = (text.splitlines() or [""])[0]
    return first if len(first) <= _MOST_CHARACTERS else first[: _MOST_CHARACTERS - 1] + "…"


def _plain(value: Any) -> str:
    return rate(value) if isinstance(value, float) else str(value)
