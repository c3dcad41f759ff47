"""Peak VRAM and verdicts, for each device and model: the same cells for the terminal, Markdown and CSV."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    varying: list[str]
    lines: list[dict[str, Any]]
    lengths: list[int]
    cells: list[list[dict[str, Any] | None]]
    notes: list[str]

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
    """One table for each device and model in `frame` (rows of cases, each case once); with `by_attention` one for each
    attention back end too.
    """
    frame = frame.assign(attention=frame["attention"].fillna(frame["attention_requested"]))
    keys = [*_GROUP, "attention"] if by_attention else _GROUP
    return [_table(rows) for _, rows in frame.groupby(keys, dropna=False, sort=True)]


def _table(rows: pd.DataFrame) -> VerdictTable:
    first = rows.iloc[0]
    limit = None if _missing(first["vram_limit_bytes"]) else int(first["vram_limit_bytes"])
    varying = [name for name in _OPTIONAL if rows[name].nunique() > 1]
    keys = _records(rows[_LINE].drop_duplicates())
    lines = sorted(keys, key=lambda k: (k["bpw"], _CACHE_ORDER.index(k["cache"]), k["lazy"], *map(str, k.values())))
    lengths = sorted(int(n) for n in rows["max_seq_len"].unique())
    found = {
        (*(row[name] for name in _LINE), int(row["max_seq_len"])): row
        for row in _records(rows.sort_values("started_at"))
    }
    cells = [[found.get((*(line[name] for name in _LINE), n)) for n in lengths] for line in lines]
    attention = "" if "attention" in varying else f", {first['attention']} attention"
    limited = "" if limit is None else f" limited to {size(limit)}"
    what = "simulated" if first["device_kind"] == "simulated" else "measured"
    parts = [first["model"], first["device_name"], *rows["attention"].unique()]
    parts += [] if limit is None else [f"{limit >> 20}mib"]
    parts += [] if _missing(first["device_uuid"]) else [str(first["device_uuid"])[-6:]]
    notes = sorted({str(note) for row in rows["notes"] if row is not None for note in row})
    notes += sorted({str(e) for e in rows.loc[~rows["outcome"].isin(["fits", "oom"]), "error"] if not _missing(e)})
    return VerdictTable(
        title=f"{first['model']} on {first['device_name']} ({what}), {size(first['device_total_bytes'])}{limited}"
        f"{attention}",
        slug="-".join(str(part) for part in parts),
        simulated=first["device_kind"] == "simulated",
        limit_bytes=limit or (None if _missing(first["device_total_bytes"]) else int(first["device_total_bytes"])),
        native_max_seq_len=None if _missing(first["native_max_seq_len"]) else int(first["native_max_seq_len"]),
        varying=varying,
        lines=lines,
        lengths=lengths,
        cells=cells,
        notes=notes,
    )


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


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
