"""What people say of one model on cards of a size, and what rows say of that: a table, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.analysis.claims import MODEL as SAID_OF
from bench.analysis.claims import SOURCE, Answer
from bench.analysis.evidence import QUESTION, SETTING
from bench.core.columns import BoundaryRow
from bench.core.identity import key_of
from bench.report.naming.axes import Axes, how
from bench.report.naming.cards import kind_word
from bench.report.naming.models import Names
from bench.report.tables.card import OPTIONAL
from bench.report.text.ends import reach
from bench.report.text.plain_table import PlainTable
from bench.report.text.render import as_markdown


def claims_section(answers: Sequence[Answer], names: Names | None = None) -> str:
    """What people say of one model on 24 GB and 40 GB cards, answered by its certified boundaries; or why it is not."""
    if not answers:
        return (
            f"## What people say\n\nOf {SAID_OF}: 24 GB: 2,048? 40 GB: 4,096 or more? Only certified boundaries on "
            "such cards answer; there are none among these rows: use max_seq_len=auto.\n"
        )
    table = claims_table(answers, names)
    return as_markdown(table).replace("### ", "## ", 1)


def claims_table(answers: Sequence[Answer], names: Names | None = None) -> PlainTable:
    """What rows say of common claims, a line for each answer; `names` are those of the document around it."""
    names = names or Names(answer.least for answer in answers)
    axes = Axes((end for answer in answers for end in (answer.least, answer.most)), OPTIONAL)
    lines = [
        [
            str(answer.saying),
            f"{names.card(answer.least)} ({kind_word(answer.least)})",
            names.model(answer.least),
            _end(answer.least, axes),
            _end(answer.most, axes),
            answer.verdict,
        ]
        for answer in answers
    ]
    return PlainTable(
        title="What people say",
        legend=f"Of {SAID_OF} alone, after {SOURCE}. The largest max_seq_len of the settings that were searched, each "
        "certified: the least and the most.",
        columns=["saying", "card", "model", "least", "most", "so the saying"],
        lines=lines,
    )


def claims_frame(answers: Sequence[Answer]) -> pd.DataFrame:
    """The same for CSV, raw, with the rows that it rests on."""
    ends = ("fits_at", *SETTING, "run_id", "boundary_id")
    records = [
        {
            "saying": str(answer.saying),
            **dict(zip(QUESTION, key_of(answer.least, QUESTION), strict=True)),
            "settings": answer.settings,
            "reaching": answer.reaching,
            "verdict": answer.verdict,
            **{f"least_{name}": value for name, value in zip(ends, key_of(answer.least, ends), strict=True)},
            **{f"most_{name}": value for name, value in zip(ends, key_of(answer.most, ends), strict=True)},
        }
        for answer in answers
    ]
    frame = pd.DataFrame(records)
    whole = [name for name in map(str, frame.columns) if name.endswith(("_bytes", "fits_at"))]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _end(row: BoundaryRow, axes: Axes) -> str:
    setting = ", ".join([f"{axes.bits(row)} bpw", row["cache"], how(row), *axes.others(row)])
    if row["fits_at"] is None:
        return f"none ({setting})"
    return f"{reach(row)} ({setting})"
