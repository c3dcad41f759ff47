"""The agreement of measured rows with others as Markdown. Every column says which of the two it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.comparison.agreement import Agreement, Compared, Tally
from bench.core.columns import ResultRow
from bench.core.identity import key_of
from bench.report.naming.axes import OPTIONAL, Axes, how
from bench.report.naming.models import Names
from bench.report.text.markdown import markdown_table
from bench.report.text.units import percent_change, size_change, tokens
from bench.report.text.verdicts import stored
from bench.store.schema import Kind

_NAMES = {
    "peak_allocated_bytes": "peak allocated",
    "peak_requested_bytes": "peak requested",
    "peak_reserved_bytes": "peak reserved",
    "peak_device_bytes": "held on the card",
    "fits_at": "fits at",
    "fails_at": "fails at",
}
# The attention is always told: the one that ran.
_VARYING = [name for name in OPTIONAL if name != "attention_requested"]
_TITLES = {Kind.CASES: "Cases", Kind.BOUNDARIES: "Boundaries"}


class _Sides(NamedTuple):
    """What the two that are compared are called, and how it is said that a row has a partner."""

    one: str
    other: str
    paired: str


_SIMULATED = _Sides("measured", "simulated", "measured rows have a simulated one")
_LIMITED = _Sides("process", "allocator", "rows of a process that holds the rest have one of a capped allocator")


def as_markdown(compared: Sequence[Compared], limits: Sequence[Compared], remarks: Sequence[str]) -> str:
    """`remarks` says of each card what it was simulated as, and what was left out, a line each; `limits` are smaller
    cards, kept both ways.
    """
    titles = _Titles([*compared, *limits])
    lines = ["# Measured and simulated", "", *(f"- {remark}" for remark in remarks)]
    for each in compared:
        if each.agreements or each.alone:
            lines += ["", f"## {_TITLES[each.kind]}", "", *_section(each, _SIMULATED, titles)]
        if each.alone:
            lines += ["", "Measured, without a simulated row beside it:", ""]
            lines += [f"- {titles.of(row)}" for row in each.alone]
    if any(each.agreements for each in limits):
        lines += ["", "# Smaller cards inside a real one", ""]
        lines += ["Measured both ways: another process holds the rest of the card, or PyTorch's allocator is capped."]
    for each in limits:
        if each.agreements:
            lines += ["", f"## {_TITLES[each.kind]}", "", *_section(each, _LIMITED, titles)]
    return "\n".join(lines) + "\n"


def _section(each: Compared, sides: _Sides, titles: _Titles) -> list[str]:
    return [*_summary(each, sides), "", *_table(each, sides, titles)]


def _summary(compared: Compared, sides: _Sides) -> list[str]:
    number = len(compared.agreements)
    lines = [
        f"{number} of {number + len(compared.alone)} {sides.paired} beside them; the verdict is the same in "
        f"{compared.same_verdicts} of {number}.",
        "",
    ]
    header = ["figure", "equal", "of", f"largest difference, {_less(sides)}", "largest share"]
    tallies = [_tally_cells(tally, compared.kind) for tally in compared.tallies() if tally.known]
    return lines + markdown_table(header, tallies, {"figure"})


def _tally_cells(tally: Tally, kind: Kind) -> list[str]:
    largest = f"{tally.largest:+,} tokens" if kind is Kind.BOUNDARIES else size_change(tally.largest)
    share = percent_change(1.0, 1.0 + tally.largest_share) if tally.largest else "0"
    return [_NAMES[tally.figure], str(tally.equal), str(tally.known), largest if tally.largest else "0", share]


def _table(compared: Compared, sides: _Sides, titles: _Titles) -> list[str]:
    figures = [tally.figure for tally in compared.tallies() if tally.known]
    unit = "tokens" if compared.kind is Kind.BOUNDARIES else "B"
    header = [
        "case",
        sides.one,
        sides.other,
        *(name for figure in figures for name in (f"{_NAMES[figure]} ({sides.one}), {unit}", _less(sides))),
    ]
    lines = []
    for agreement in compared.agreements:
        cells = [titles.of(agreement.measured), *(_verdict(row) for row in (agreement.measured, agreement.other))]
        for figure in figures:
            cells += [tokens(key_of(agreement.measured, [figure])[0]), _difference(agreement, figure)]
        lines.append(cells)
    return markdown_table(header, lines, header[:3])


def _less(sides: _Sides) -> str:
    return f"{sides.other} less {sides.one}"


def _difference(agreement: Agreement, figure: str) -> str:
    difference = agreement.differences.get(figure)
    if difference is None:
        return "–"
    return f"{difference:+,}" if difference else "0"


def _verdict(row: ResultRow) -> str:
    return stored(row["outcome"], *key_of(row, ["phase"]))


class _Titles:
    """What each row that is compared is called: no two alike."""

    def __init__(self, compared: Sequence[Compared]) -> None:
        rows = [row for each in compared for row in [*(pair.measured for pair in each.agreements), *each.alone]]
        self._names, self._axes = Names(rows), Axes(rows, _VARYING)

    def of(self, row: ResultRow) -> str:
        """`tinyllama_1_1b 4 bpw FP16 load flash 2,048 on nvidia_l4 limited to 8.00 GiB`."""
        (max_seq_len,) = key_of(row, ["max_seq_len"])
        attention = row["attention"] or row["attention_requested"]
        setting = [f"{self._axes.bits(row)} bpw", row["cache"], how(row), attention or "", *self._axes.others(row)]
        setting += [] if max_seq_len is None else [tokens(max_seq_len)]
        return f"{self._names.model(row)} {' '.join(setting)} on {self._names.card(row)}"
