"""A comparison as Markdown, for a comment on a pull request, and in the terminal: the same cells."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.report.comparison.content import ComparisonReport
from bench.report.comparison.sections import Section
from bench.report.text.markdown import markdown_table, plain_text

# GitHub takes comments of 65,536 characters; the tables of all topics, this long, stay below. JSON has everything.
_MOST_LINES = 30
_NUMBERS = {"limit", "bpw", "head", "batch", "input", "max_seq_len", "change", "rows"}
_STYLES = {"worse": "red", "unclear": "yellow", "let pass": "yellow", "better": "green"}
_FAINT = "bright_black"


def as_markdown(report: ComparisonReport) -> str:
    """A verdict in bold, a line of what was compared, and the details, folded."""
    mark = "✓" if report.comparison.passed else "✗"
    lines = [f"**{mark} vram-bench {plain_text(report.headline)}**", "", plain_text(report.summary)]
    lines += [plain_text(constant) for constant in report.constants]
    if report.skipped:
        lines += ["", "Not read, and not compared:", "", *(f"- {plain_text(problem)}" for problem in report.skipped)]
    for section in [*report.sections, report.origins]:
        lines += ["", *_folded(section.title, _markdown_table(section))]
    lines += ["", *_folded("Gates", [f"- {plain_text(gate)}" for gate in report.gates])]
    return "\n".join(lines) + "\n"


def show(report: ComparisonReport, console: Console) -> None:
    """The same for the terminal, at home in 80 columns; in a terminal long tables are cut."""
    passed = report.comparison.passed
    console.print(Text(f"{'✓' if passed else '✗'} {report.headline}", "bold green" if passed else "bold red"))
    console.print(Text(" ".join([report.summary, *report.constants])))
    for section in [*report.sections, report.origins]:
        console.print()
        console.print(Text(section.title, style="bold"))
        console.print(_rich_lines(section, _MOST_LINES if console.is_terminal else None))
        if console.is_terminal and len(section.lines) > _MOST_LINES:
            console.print(Text(f"… and {len(section.lines) - _MOST_LINES:,} more; --json has all", _FAINT))
    console.print()
    console.print(Text(f"Gates: {'; '.join(report.gates)}.", _FAINT))


def _folded(title: str, lines: list[str]) -> list[str]:
    return ["<details>", f"<summary>{plain_text(title)}</summary>", "", *lines, "", "</details>"]


def _markdown_table(section: Section) -> list[str]:
    marked = any(line.mark for line in section.lines)
    header = [*([""] if marked else []), *section.names, *section.header]
    rows = [
        [plain_text(cell) for cell in [*([line.mark] if marked else []), *line.name, *line.cells]]
        for line in section.lines[:_MOST_LINES]
    ]
    cut = len(section.lines) - len(rows)
    more = ["", f"… and {cut:,} more; `--json` has all"] if cut else []
    return markdown_table(header, rows, set(header) - _NUMBERS) + more


def _rich_lines(section: Section, most_lines: int | None) -> Table:
    """A line for each thing, in words: tables of so many columns are at home nowhere but in a browser."""
    lines = section.lines[:most_lines]
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for line in lines:
        said = Text(f"{line.title}: {_in_words(section.header, line.cells)}")
        grid.add_row(*([Text(line.mark, _STYLES.get(line.mark, ""))] if line.mark else []), said)
    return grid


def _in_words(header: list[str], cells: list[str]) -> str:
    """`allocated 1.25 GiB → 1.28 GiB, +32.0 MiB (+2.5 %)`."""
    if "BASE" not in header:
        return ", ".join(cells)
    index = header.index("BASE")
    rest = [cell for cell in cells[index + 2 :] if cell not in ("", "–")]
    if cells[index] == cells[index + 1] and not rest:
        return cells[index]
    return ", ".join([" ".join([*cells[:index], f"{cells[index]} → {cells[index + 1]}"]), *rest])
