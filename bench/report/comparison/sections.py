"""The tables of a comparison: a line for each thing that changed, the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bench.comparison.compare import SIMULATED_PEAKS, Change, Comparison, Finding
from bench.comparison.pairing import AnyRefusal
from bench.comparison.speeds import SPEEDS
from bench.core.columns import ResultRow
from bench.core.identity import key_of
from bench.report.comparison.names import Names, card_text
from bench.report.comparison.rows import boundary_row, other_row, peaks_row, speed_row, verdict_row
from bench.report.naming.cards import kind_word
from bench.store.schema import Kind

THINGS = {Kind.CASES: ("case", "cases"), Kind.BOUNDARIES: ("boundary", "boundaries")}


class Topic(StrEnum):
    """What a table is about, in the order in which they are shown."""

    VERDICTS = "Verdicts"
    MISSING = "Missing"
    NEW = "New"
    REFUSED = "Not comparable"
    BOUNDARIES = "Boundaries"
    PEAKS = "VRAM"
    SPEEDS = "Speeds"
    OTHER = "Also"
    ORIGINS = "What was compared"


_Line = Sequence[Finding]

# The last columns of a topic's table, and how a line fills them.
_CELLS: dict[Topic, tuple[list[str], Callable[[_Line], list[str]]]] = {
    Topic.VERDICTS: (["BASE", "HEAD", "why"], lambda line: verdict_row(line[0])),
    Topic.BOUNDARIES: (["BASE", "HEAD", "change", "note"], lambda line: boundary_row(line[0])),
    Topic.PEAKS: (["peak", "BASE", "HEAD", "change", "with it"], peaks_row),
    Topic.SPEEDS: (["speed", "BASE", "HEAD", "change", "basis"], lambda line: speed_row(line[0])),
    Topic.OTHER: (["what", "BASE", "HEAD"], lambda line: other_row(line[0])),
}
# How a line is marked; the worst first.
_MARKS = ("worse", "unclear", "let pass", "better", "changed")
_COUNTED = {
    Topic.VERDICTS: ("verdict worse", "verdicts worse"),
    Topic.BOUNDARIES: ("boundary lower", "boundaries lower"),
    Topic.PEAKS: ("peak of VRAM higher", "peaks of VRAM higher"),
    Topic.SPEEDS: ("speed lower", "speeds lower"),
}
_WHY_REFUSED = {
    "device_kind": "simulated against measured",
    "device_name": "another card",
    "device_uuid": "another GPU of the same name",
    "device_total_bytes": "another memory size under the same name",
    "driver_version": "another driver",
    "model_fingerprint": "another model under the same name",
}


@dataclass(frozen=True)
class Line:
    """One thing to say: how it is to be taken, what it is about (in cells, and in words), and what is said of it."""

    mark: str
    name: list[str]
    title: str
    cells: list[str]


@dataclass(frozen=True)
class Section:
    """Lines on one topic. `names` and `header` head the cells of their names and of what is said."""

    topic: Topic
    title: str
    names: list[str]
    header: list[str]
    lines: list[Line]


def sections_of(comparison: Comparison, names: Names, device_kind: str) -> list[Section]:
    """The tables of one kind of card."""
    found = [finding for finding in comparison.findings if finding.pair.head.row["device_kind"] == device_kind]
    sections = []
    for topic, (header, cells) in _CELLS.items():
        lines = sorted(lines_of(finding for finding in found if _topic(finding) is topic), key=_severity)
        if lines:
            told = [_line(_mark(line), names, line[0].pair.head.row, cells(line)) for line in lines]
            marks = Counter(_mark(line) for line in lines)
            tally = ", ".join(f"{marks[mark]} {mark}" for mark in _MARKS if mark in marks)
            title = f"{topic} ({kind_word(lines[0][0].pair.head.row)}): {tally}"
            sections.append(Section(topic, title, names.header, header, told))
    joins = comparison.joined.values()
    missing = [row for joined in joins for row in joined.missing if row["device_kind"] == device_kind]
    new = [row for joined in joins for row in joined.new if row["device_kind"] == device_kind]
    sections += _one_sided(Topic.MISSING, missing, "in BASE only", names)
    return sections + _one_sided(Topic.NEW, new, "in HEAD only", names)


def lines_of(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings that make one line: the peaks of a case go together, anything else stands alone."""
    lines: dict[Any, list[Finding]] = {}
    for finding in findings:
        topic = _topic(finding)
        shared = topic if topic is Topic.PEAKS else finding.column
        lines.setdefault((finding.kind, id(finding.pair), shared), []).append(finding)
    return list(lines.values())


def counted(findings: Iterable[Finding]) -> list[str]:
    """`1 verdict worse`, `3 peaks of VRAM higher`: findings that are worse, by topic."""
    topics = Counter(_topic(line[0]) for line in lines_of(findings))
    return [count(number, *_COUNTED[topic]) for topic, number in topics.items()]


def count(number: int, one: str, several: str) -> str:
    """`number` with the word for it: `1 case`, `1,024 cases`."""
    return f"{number:,} {one if number == 1 else several}"


def refusal_section(refused: Sequence[AnyRefusal]) -> Section:
    """The reasons, each once, with how many rows it holds for."""
    reasons = Counter(_reason(refusal) for refusal in refused)
    lines = [
        Line("", [why], why, [base, head, count(number, "row", "rows")])
        for (why, base, head), number in reasons.items()
    ]
    return Section(Topic.REFUSED, f"{Topic.REFUSED}: {len(refused):,}", ["why"], ["BASE", "HEAD", "rows"], lines)


def refusal_text(refusal: AnyRefusal) -> str:
    """`another card: rtx_4090 (simulated) in BASE, l4 (simulated) in HEAD`."""
    why, base, head = _reason(refusal)
    return f"{why}: {base} in BASE, {head} in HEAD"


def _one_sided(topic: Topic, rows: Sequence[ResultRow], where: str, names: Names) -> list[Section]:
    lines = [_line("", names, row, [row["outcome"]]) for row in rows]
    title = f"{topic} ({kind_word(rows[0])}): {len(rows):,} {where}" if rows else ""
    return [Section(topic, title, names.header, ["verdict"], lines)] if rows else []


def _line(mark: str, names: Names, row: ResultRow, cells: list[str]) -> Line:
    return Line(mark, names.cells(row), names.title(row), cells)


def _reason(refusal: AnyRefusal) -> tuple[str, str, str]:
    column = refusal.column
    values = []
    for row in (refusal.base, refusal.head):
        what = row["model"] if column == "model_fingerprint" else card_text(row)
        values.append(what if column in ("device_kind", "device_name") else f"{what} {key_of(row, [column])[0]}")
    return _WHY_REFUSED.get(column, "another card under the same name"), values[0], values[1]


def _topic(finding: Finding) -> Topic:
    if finding.column == "outcome":
        return Topic.VERDICTS
    if finding.column == "fits_at":
        return Topic.BOUNDARIES
    if finding.column in SIMULATED_PEAKS:
        return Topic.PEAKS
    return Topic.SPEEDS if finding.column in SPEEDS else Topic.OTHER


def _mark(line: _Line) -> str:
    if any(finding.fails for finding in line):
        return "worse"
    words = {
        Change.UNDECIDED: "unclear",
        Change.WORSE: "let pass",
        Change.BETTER: "better",
        Change.OTHER: "changed",
    }
    changes = {finding.change for finding in line}
    return next(word for change, word in words.items() if change in changes)


def _severity(line: _Line) -> tuple[int, float]:
    """The worst mark first, and of one mark what changed most, as a share of what was."""
    base, head = line[0].base, line[0].head
    known = isinstance(base, int | float) and isinstance(head, int | float) and base > 0
    return _MARKS.index(_mark(line)), -abs(head - base) / base if known else 0.0
