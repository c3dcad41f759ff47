"""The Pareto fronts for people, and all points for CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.analysis.evidence import QUESTION
from bench.core.identity_columns import IdentityColumns, RanAttention
from bench.report.naming.axes import Axes, how
from bench.report.naming.models import Names
from bench.report.naming.questions import Asked, Questions
from bench.report.rows import groups_of, memory_of
from bench.report.tables.assumptions import in_words
from bench.report.tables.card import OPTIONAL
from bench.report.text.plain_table import PlainTable, card_key
from bench.report.text.render import as_markdown
from bench.report.text.units import gib, rate, tokens


class _Point(IdentityColumns, RanAttention):
    """A setting at a length, with its place among the others and what others say of its quality."""

    question: int
    max_seq_len: int
    peak_device_bytes: int
    tokens_per_s: float | None
    tokens_per_s_basis: str | None
    quality: float | None
    quality_metric: str | None
    quality_source: str | None
    notes: list[str] | None


def as_markdown_page(tables: Sequence[PlainTable], has_rows: bool) -> str:
    """All fronts; or why there is none, though there are rows or because there are not."""
    if tables:
        return "\n".join(["# What each setting costs and gives\n", *(as_markdown(table) for table in tables)])
    why = "no row tells the VRAM of a setting that fits" if has_rows else "no row shows that anything fits"
    return f"# What each setting costs and gives\n\nNothing to compare: {why}.\n"


def front_tables(points: pd.DataFrame, names: Names | None = None) -> list[PlainTable]:
    """A table for each question: what is on the front (`tradeoffs.tradeoffs`, with its quality)."""
    names = names or Names.of_frames(points)
    front = points[points["on_front"].eq(True).fillna(False)]
    front = front.assign(memory=memory_of(front))
    order = ["device_kind", "memory", *QUESTION, "max_seq_len", "peak_device_bytes"]
    front = front.sort_values(order, ascending=[name != "max_seq_len" for name in order], kind="stable")
    counts = points.groupby("question")["on_front"].agg(["size", "count", "sum"]).to_dict("index")
    number = front.groupby("question", sort=False).ngroup().to_numpy()
    asked = points[list(Asked._fields)].drop_duplicates()
    rows = asked.itertuples(index=False, name=None)
    questions = Questions(Asked.of(dict(zip(Asked._fields, row, strict=True))) for row in rows)
    return [_table(rows, counts[rows[0]["question"]], names, questions) for rows in groups_of(front, number, _Point)]


def _table(rows: list[_Point], count: dict[Any, int], names: Names, questions: Questions) -> PlainTable:
    first, axes = rows[0], Axes(rows, OPTIONAL, beside=("max_seq_len",))
    has_quality = any(row["quality"] is not None for row in rows)
    estimated = any(row["tokens_per_s_basis"] == "estimated" for row in rows)
    lines = [
        [
            axes.bits(row),
            row["cache"],
            how(row),
            *axes.cells(row),
            tokens(row["max_seq_len"]),
            gib(row["peak_device_bytes"], 2),
            rate(row["tokens_per_s"]) + (" est." if row["tokens_per_s_basis"] == "estimated" else ""),
            *(["–" if row["quality"] is None else f"{row['quality']:g}"] if has_quality else []),
        ]
        for row in rows
    ]
    told = "tokens/s: decoding with this context full" + (", estimated." if estimated else ".")
    legend = (
        f"{count['sum']} of {count['count']} settings and lengths: of the others, each has one here that is as good in "
        f"VRAM, max_seq_len, tokens/s and bits per weight, and better in one of them. {told}"
    )
    legend += " quality: what others measured, noted below." if has_quality else ""
    skipped = count["size"] - count["count"]
    notes = [f"{skipped} more are not compared: their VRAM or tokens/s is unknown"] if skipped else []
    if has_quality:
        notes += sorted({f"quality: {_metric(row)}" for row in rows if row["quality"] is not None})
    assumptions = in_words(note for row in rows for note in (row["notes"] if row["notes"] is not None else []))
    asked = questions.words(Asked.of(first))
    return PlainTable(
        title=f"{names.model(first)}{asked} on {names.card_title(first)}",
        legend=legend,
        columns=[
            "bpw",
            "cache",
            "how",
            *axes.varying,
            "max_seq_len",
            "VRAM, GiB",
            "tokens/s",
            *(["quality"] if has_quality else []),
        ],
        lines=lines,
        notes=notes,
        assumptions=assumptions,
        varying=axes.varying,
        card_key=card_key(first),
    )


def _metric(row: _Point) -> str:
    return ", ".join(filter(None, [row["quality_metric"], row["quality_source"]])) or "as the CSV has it"
