"""Writes the tables of docs/results.md from the columns of bench/core; with --check only says whether they differ.

.venv/bin/python scripts/renew/document_columns.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.core.column import Declared, declared
from bench.core.columns import BoundaryRow, CaseRow, MemoryRow

DOCS = Path(__file__).parents[2] / "docs" / "results.md"
WORDS = {int: "integer", float: "float", str: "text", bool: "bool", list[str]: "texts", list[float]: "floats"}


def table(row: type, told_before: type | None = None) -> str:
    """The columns of a kind of rows, without those that `told_before` has with the same words."""
    before = declared(told_before) if told_before else ()
    shown = [column for column in declared(row) if column not in before]
    lines = ["| column | type | unit | meaning |", "|---|---|---|---|", *map(line, shown)]
    if len(shown) < len(declared(row)):
        lines.append("| all others | | | as in a case |")
    return "\n".join(lines)


def line(column: Declared) -> str:
    about = column.about
    kind = WORDS.get(column.type, "moment")
    return f"| `{column.name}` | {kind}{', null' if column.nullable else ''} | {about.unit} | {about.doc} |"


def with_table(text: str, title: str, rows: str) -> str:
    """The document with `rows` in place of the first table below a heading."""
    start = text.index("\n|", text.index(f"\n## {title}\n")) + 1
    return text[:start] + rows + text[text.index("\n\n", start) :]


def main(check: bool) -> int:
    text = DOCS.read_text(encoding="utf-8")
    new = with_table(with_table(text, "Cases", table(CaseRow)), "Boundaries", table(BoundaryRow, CaseRow))
    new = with_table(new, "Memory", table(MemoryRow))
    if new == text:
        return 0
    if check:
        print(f"{DOCS}: the tables of columns are not those of bench/core; run {__file__}", file=sys.stderr)
        return 1
    DOCS.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
