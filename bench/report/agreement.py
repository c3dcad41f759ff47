"""The agreement of measured and simulated rows as Markdown. Every column says which of the two it is."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.format import percent_change, size_change, tokens
from bench.results.agreement import Agreement, Compared, Tally
from bench.results.pairing import Row
from bench.results.schema import Kind

_NAMES = {
    "peak_allocated_bytes": "peak allocated",
    "peak_requested_bytes": "peak requested",
    "peak_reserved_bytes": "peak reserved",
    "peak_device_bytes": "held on the card",
    "fits_at": "fits at",
    "fails_at": "fails at",
}
_TITLES = {Kind.CASES: "Cases", Kind.BOUNDARIES: "Boundaries"}


def as_markdown(compared: Sequence[Compared], cards: Sequence[str]) -> str:
    """`cards` says of each card what it was simulated as, a line each."""
    lines = ["# Measured and simulated", "", *(f"- {card}" for card in cards)]
    for each in compared:
        if each.agreements or each.alone:
            lines += ["", f"## {_TITLES[each.kind]}", "", *_summary(each), "", *_table(each)]
        if each.alone:
            lines += ["", "Measured, without a simulated row beside it:", ""]
            lines += [f"- {_title(row)}" for row in each.alone]
    return "\n".join(lines) + "\n"


def _summary(compared: Compared) -> list[str]:
    number = len(compared.agreements)
    lines = [
        f"{number} of {number + len(compared.alone)} measured rows have a simulated one beside them; "
        f"the verdict is the same in {compared.same_verdicts} of {number}.",
        "",
        "| figure | equal | of | largest difference, simulated less measured | largest share |",
        "|---|---:|---:|---:|---:|",
    ]
    return lines + [_tally_line(tally, compared.kind) for tally in compared.tallies() if tally.known]


def _tally_line(tally: Tally, kind: Kind) -> str:
    largest = f"{tally.largest:+,} tokens" if kind is Kind.BOUNDARIES else size_change(tally.largest)
    share = percent_change(1.0, 1.0 + tally.largest_share) if tally.largest else "0"
    return f"| {_NAMES[tally.figure]} | {tally.equal} | {tally.known} | {largest if tally.largest else '0'} | {share} |"


def _table(compared: Compared) -> list[str]:
    figures = [tally.figure for tally in compared.tallies() if tally.known]
    unit = "tokens" if compared.kind is Kind.BOUNDARIES else "B"
    header = [
        "case",
        "measured",
        "simulated",
        *(name for figure in figures for name in (f"{_NAMES[figure]} (measured), {unit}", "simulated less measured")),
    ]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * 3}{'---:|' * (len(header) - 3)}"]
    for agreement in compared.agreements:
        cells = [_title(agreement.measured), *(_verdict(row) for row in (agreement.measured, agreement.simulated))]
        for figure in figures:
            cells += [tokens(agreement.measured.get(figure)), _difference(agreement, figure)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _difference(agreement: Agreement, figure: str) -> str:
    difference = agreement.differences.get(figure)
    if difference is None:
        return "–"
    return f"{difference:+,}" if difference else "0"


def _verdict(row: Row) -> str:
    outcome, phase = str(row["outcome"]), row.get("phase")
    return outcome if phase in (None, "done") else f"{outcome} in {phase}"


def _title(row: Row) -> str:
    how = "lazy" if row["lazy"] else "load"
    length = f" {tokens(row['max_seq_len'])}" if row.get("max_seq_len") is not None else ""
    limit = f" limited to {row['vram_limit_bytes']:,} B" if row.get("vram_limit_bytes") is not None else ""
    attention = row.get("attention") or row.get("attention_requested")
    return f"{row['model']} {row['bpw']:g} bpw {row['cache']} {how} {attention}{length} on {row['device_name']}{limit}"
