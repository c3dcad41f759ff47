"""What a comparison says, for people: a verdict in a line, and tables of cells that can be shown anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bench.comparison.compare import Change, Comparison, Slack
from bench.comparison.pairing import AnyPair, made_at
from bench.comparison.speeds import ALPHA
from bench.core.columns import ResultRow
from bench.core.outcome import ANSWERS
from bench.report.comparison.names import Names
from bench.report.comparison.origins import VERSIONS, changed_facts, values
from bench.report.comparison.sections import (
    THINGS,
    Line,
    Section,
    Topic,
    count,
    counted,
    lines_of,
    refusal_section,
    sections_of,
)
from bench.report.naming.cards import kind_word
from bench.report.text.units import size_change
from bench.store.schema import Kind


@dataclass(frozen=True)
class Side:
    """One side as it was given: its name, and all its rows (some, of either kind)."""

    name: str
    rows: Mapping[Kind, Sequence[ResultRow]]


@dataclass(frozen=True)
class ComparisonReport:
    """All that is shown. `skipped` are the files that could not be read, each in a line."""

    comparison: Comparison
    base: Side
    head: Side
    skipped: Sequence[str] = ()

    @property
    def headline(self) -> str:
        """`failed (simulated): 1 verdict worse, 2 boundaries lower`."""
        comparison = self.comparison
        worst = counted(finding for finding in comparison.findings if finding.fails)
        for kind, joined in comparison.joined.items():
            if joined.missing and not comparison.gates.allow_missing:
                worst.append(f"{count(len(joined.missing), *THINGS[kind])} missing")
        refused = [r for joined in comparison.joined.values() for r in joined.refused if comparison.refusal_fails(r)]
        worst += [f"{len(refused):,} not comparable"] if refused else []
        what = " and ".join(sorted({kind_word(pair.head.row) for pair in self._pairs}))
        if worst:
            return f"failed ({what}): {', '.join(worst)}"
        worse = any(finding.change is Change.WORSE for finding in comparison.findings)
        told = ["nothing worse than the gates let pass" if worse else "nothing worse"]
        unclear = len(lines_of(finding for finding in comparison.findings if finding.change is Change.UNDECIDED))
        return f"passed ({what}): {', '.join([*told, *([f'{unclear:,} unclear'] if unclear else [])])}"

    @property
    def summary(self) -> str:
        """How much was compared, and what else came out."""
        findings = self.comparison.findings
        joins = self.comparison.joined
        told = [count(len(joined.pairs), *THINGS[kind]) for kind, joined in joins.items() if joined.pairs]
        rest = {
            "let pass": len(lines_of(f for f in findings if f.change is Change.WORSE and not f.fails)),
            "better": len(lines_of(f for f in findings if f.change is Change.BETTER)),
            "unclear": len(lines_of(f for f in findings if f.change is Change.UNDECIDED)),
            "new": len(self.comparison.new),
            "without an answer on either side": sum(_unanswered(pair) for pair in self._pairs),
        }
        others = [f"{number:,} {word}" for word, number in rest.items() if number]
        return "; ".join([f"{' and '.join(told)} compared", *([", ".join(others)] if others else [])]) + "."

    @property
    def sections(self) -> list[Section]:
        """What failed and what is new first; never a simulated and a measured row in one table."""
        sections = [
            section
            for device_kind, rows in self._by_device_kind().items()
            for section in sections_of(self.comparison, Names(rows), device_kind)
        ]
        refused = [refusal for joined in self.comparison.joined.values() for refusal in joined.refused]
        if refused:
            sections.append(refusal_section(refused))
        order = list(Topic)
        return sorted(sections, key=lambda section: order.index(section.topic))

    @property
    def constants(self) -> list[str]:
        """What all rows have in common, for each kind of card."""
        names = [(rows[0], Names(rows).constant) for rows in self._by_device_kind().values()]
        return [f"All {kind_word(row)}: {constant}." for row, constant in names if constant]

    @property
    def origins(self) -> Section:
        """Where both sides come from, and what changed on purpose."""
        sides, pairs = (self.base, self.head), self._pairs
        rows = [
            ["from", *(side.name for side in sides)],
            ["rows", *(_rows_and_runs(side) for side in sides)],
            ["measured", *(_moments(side) for side in sides)],
        ]
        changed = []
        for column, name in VERSIONS.items():
            old, new = (values(answers, column) for answers in _answers(pairs))
            differs = bool(old and new and old != new)
            changed += [name] if differs else []
            if old or new:
                rows.append([name + (" (changed)" if differs else ""), old or "–", new or "–"])
        for name, old, new in changed_facts(pairs):
            changed.append(name)
            rows.append([f"{name} (changed)", old, new])
        title = Topic.ORIGINS + (f"; changed: {', '.join(changed)}" if changed else "")
        lines = [Line("", [name], name, cells) for name, *cells in rows]
        return Section(Topic.ORIGINS, title, [""], ["BASE", "HEAD"], lines)

    @property
    def gates(self) -> list[str]:
        """Each gate in a line."""
        gates = self.comparison.gates
        loss = f"{gates.boundary_loss.units:g} pages of 256 tokens"
        growth = size_change(round(gates.vram_growth.units)).lstrip("+")
        return [
            f"VRAM may grow by {_slack(gates.vram_growth, growth)}",
            f"a boundary may fall by {_slack(gates.boundary_loss, loss)}",
            f"a speed may fall until it takes {gates.slowdown_percent:g} % longer; it counts where p < {ALPHA:g}",
            "a verdict may not become worse",
            f"cases and boundaries {'may' if gates.allow_missing else 'may not'} be missing",
            f"the driver {'may' if gates.allow_driver_change else 'may not'} be another",
            f"a model {'may' if gates.allow_model_change else 'may not'} be another quantisation",
        ]

    @property
    def _pairs(self) -> list[AnyPair]:
        return [pair for joined in self.comparison.joined.values() for pair in joined.pairs]

    def _by_device_kind(self) -> dict[str, list[ResultRow]]:
        """All rows that are named somewhere."""
        joins = self.comparison.joined.values()
        rows = [row for joined in joins for row in [*joined.missing, *joined.new]]
        rows += [pair.head.row for pair in self._pairs]
        kinds = sorted({row["device_kind"] for row in rows})
        return {kind: [row for row in rows if row["device_kind"] == kind] for kind in kinds}


def _answers(pairs: Sequence[AnyPair]) -> tuple[list[ResultRow], list[ResultRow]]:
    return [pair.base.row for pair in pairs], [pair.head.row for pair in pairs]


def _unanswered(pair: AnyPair) -> bool:
    return pair.base.row["outcome"] not in ANSWERS and pair.head.row["outcome"] not in ANSWERS


def _slack(slack: Slack, units: str) -> str:
    return f"{slack.percent:g} %" if slack.percent else units


def _rows_and_runs(side: Side) -> str:
    rows = [row for each in side.rows.values() for row in each]
    return f"{len(rows):,} in {count(len({row['run_id'] for row in rows}), 'run', 'runs')}"


def _moments(side: Side) -> str:
    moments: list[datetime] = sorted(made_at(row) for rows in side.rows.values() for row in rows)
    first, last = (f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" for moment in (moments[0], moments[-1]))
    if first[:10] == last[:10]:
        last = last[11:]
    return f"{first} UTC" if first.endswith(last) else f"{first} to {last} UTC"
