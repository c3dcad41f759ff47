"""Peak VRAM and verdicts, for each device and model: the same cells for the terminal, Markdown and CSV."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.report.format import gib, size, tokens

# What makes one table: rows that differ in any of these are never shown as one.
_GROUP = ["device_kind", "device_name", "device_uuid", "vram_limit_bytes", "model", "model_fingerprint"]
# What makes one line of it, and which of that is shown only where it differs within the table.
_LINE = ["bpw", "cache", "lazy", "attention", "head_bits", "batch_size", "max_input_len"]
_OPTIONAL = _LINE[3:]
_WHOLE = {"head_bits", "batch_size", "max_input_len", "max_seq_len", "native_max_seq_len"}
_CACHE_ORDER = ("FP16", "Q8", "Q6", "Q4")
_LEGEND = "Peak VRAM in GiB, or the phase that ran out. max: the model's own limit; +: not seen to fail."
_SHORT = {"timeout": "timed out", "unsupported": "n/a", "degraded": "spilled"}


@dataclass(frozen=True)
class VerdictTable:
    """One device and one model. `cells[i][j]` is the row for line i and length j, None where there is none."""

    title: str
    slug: str
    simulated: bool
    limit_bytes: int | None
    native_max_seq_len: int | None
    model_fingerprint: str | None
    varying: list[str]
    lines: list[dict[str, Any]]
    lengths: list[int]
    cells: list[list[dict[str, Any] | None]]
    notes: list[str]

    def told_apart(self) -> VerdictTable:
        """The same, named with the model's fingerprint: another model has the same name."""
        mark = (self.model_fingerprint or "unknown")[:6]
        return replace(self, title=f"{self.title} [{mark}]", slug=f"{self.slug}-{mark}")

    def header(self) -> list[str]:
        return ["bpw", "cache", "how", *self.varying, *(tokens(n) for n in self.lengths), "fits up to"]

    def body(self) -> list[list[str]]:
        return [
            [
                f"{line['bpw']:g}",
                str(line["cache"]),
                "lazy" if line["lazy"] else "load",
                *(str(line[name]) for name in self.varying),
                *(_cell(cell) for cell in self.cells[i]),
                self.fits_up_to(i),
            ]
            for i, line in enumerate(self.lines)
        ]

    def fits_up_to(self, index: int) -> str:
        """The longest length of a line that was seen to fit."""
        row = [(n, cell["outcome"]) for n, cell in zip(self.lengths, self.cells[index], strict=True) if cell]
        fits = max((n for n, outcome in row if outcome == "fits"), default=None)
        if fits is None:
            return "none" if any(outcome == "oom" for _, outcome in row) else "–"
        if fits == self.native_max_seq_len:
            return f"{tokens(fits)} max"
        return tokens(fits) + ("" if any(n > fits and outcome == "oom" for n, outcome in row) else "+")


def verdict_tables(frame: pd.DataFrame, by_attention: bool = False) -> list[VerdictTable]:
    """One table for each device and model in `frame` (rows of cases, each case once).

    With `by_attention` each attention back end has a table of its own.
    """
    frame = frame.assign(attention=frame["attention"].fillna(frame["attention_requested"])).sort_values("started_at")
    keys = [*_GROUP, "attention"] if by_attention else _GROUP
    tables = [_table(_records(rows)) for _, rows in frame.groupby(keys, dropna=False, sort=True)]
    slugs = Counter(table.slug for table in tables)
    return [table if slugs[table.slug] == 1 else table.told_apart() for table in tables]


def _table(rows: list[dict[str, Any]]) -> VerdictTable:
    first = rows[0]
    limit = first["vram_limit_bytes"]
    lines = [dict(zip(_LINE, key, strict=True)) for key in dict.fromkeys(_line_key(row) for row in rows)]
    lines.sort(
        key=lambda line: (line["bpw"], _CACHE_ORDER.index(line["cache"]), line["lazy"], *map(str, line.values()))
    )
    lengths = sorted({row["max_seq_len"] for row in rows})
    found = {(_line_key(row), row["max_seq_len"]): row for row in rows}
    attentions = list(dict.fromkeys(row["attention"] or "unknown" for row in rows))
    what = "simulated" if first["device_kind"] == "simulated" else "measured"
    limited = "" if limit is None else f" limited to {size(limit)}"
    attention = f", {attentions[0]} attention" if len(attentions) == 1 else ""
    parts = [first["model"], first["device_name"], *attentions]
    parts += [] if limit is None else [f"{limit >> 20}mib"]
    parts += [] if first["device_uuid"] is None else [first["device_uuid"][-6:]]
    notes = sorted({str(note) for row in rows for note in (row["notes"] if row["notes"] is not None else [])})
    notes += sorted({row["error"] for row in rows if row["error"] and row["outcome"] not in ("fits", "oom")})
    return VerdictTable(
        title=f"{first['model']} on {first['device_name']} ({what}), {size(first['device_total_bytes'])}{limited}"
        f"{attention}",
        slug="-".join(str(part) for part in parts),
        simulated=first["device_kind"] == "simulated",
        limit_bytes=limit or first["device_total_bytes"],
        native_max_seq_len=first["native_max_seq_len"],
        model_fingerprint=first["model_fingerprint"],
        varying=[name for name in _OPTIONAL if len({line[name] for line in lines}) > 1],
        lines=lines,
        lengths=lengths,
        cells=[[found.get((tuple(line.values()), n)) for n in lengths] for line in lines],
        notes=notes,
    )


def _line_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _LINE)


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Plain Python values: None for null, and whole numbers whole, which pandas loses beside a null."""
    whole = {name for name in rows.columns if name in _WHOLE or name.endswith("_bytes")}
    return [
        {str(name): None if _missing(value) else int(value) if name in whole else value for name, value in row.items()}
        for row in rows.to_dict("records")
    ]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["outcome"] == "fits":
        return gib(row["peak_device_bytes"])
    if row["outcome"] == "oom":
        return f"OOM {row['phase']}"
    return _SHORT.get(row["outcome"], str(row["outcome"]))


def as_markdown(table: VerdictTable) -> str:
    """A heading, the table, and its notes."""
    header = table.header()
    rule = ["---" if name in ("cache", "how", "attention") else "---:" for name in header]
    lines = [f"### {table.title}", "", _LEGEND, ""]
    lines += ["| " + " | ".join(row) + " |" for row in (header, rule, *table.body())]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def as_rich(table: VerdictTable) -> Group:
    """For the terminal, at home in 80 columns."""
    rich = Table(box=None, padding=(0, 1), pad_edge=False)
    for name in table.header():
        rich.add_column(name, justify="left" if name in ("cache", "how", "attention") else "right", no_wrap=True)
    for row in table.body():
        rich.add_row(*(Text(cell, style="yellow" if cell.startswith("OOM") or cell == "none" else "") for cell in row))
    legend = [Text(text, style="bright_black") for text in (_LEGEND, *table.notes)]
    return Group(Text(table.title, style="bold"), rich, *legend)


def as_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows for CSV, raw, without the columns that hold whole documents."""
    hidden = {"environment", "telemetry", "phases", "prefill_samples_s", "decode_samples_s", "decode_full_samples_s"}
    shown = frame[[name for name in frame.columns if name not in hidden]]
    return shown.sort_values([*_GROUP, *_LINE, "max_seq_len"])
