"""Peak VRAM and verdicts, for each device and model: the same cells as text, Markdown and CSV."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from bench.report.format import gib, size, tokens

# What makes one table, and what makes one line of it. Rows that differ in any of these are never pooled.
GROUP = ["device_kind", "device_name", "device_uuid", "vram_limit_bytes", "model", "attention_used"]
LINE = ["bpw", "cache", "lazy", "head_bits", "batch_size", "max_input_len"]
_CACHE_ORDER = ("FP16", "Q8", "Q6", "Q4")
_SHORT = {"oom": "OOM", "timeout": "time", "unsupported": "n/a", "degraded": "slow"}


@dataclass(frozen=True)
class VerdictTable:
    """One device and one model. `cells[i][j]` is the row for line i and length j, or None."""

    title: str
    slug: str
    simulated: bool
    limit_bytes: int | None
    lines: list[dict[str, Any]]
    lengths: list[int]
    cells: list[list[dict[str, Any] | None]]
    notes: list[str]

    def line_label(self, line: dict[str, Any]) -> list[str]:
        return [f"{line['bpw']:g}", str(line["cache"]), "lazy" if line["lazy"] else "load"]

    def fits_up_to(self, index: int) -> str:
        """The longest length of a line that fits, and where it was seen to fail."""
        row = self.cells[index]
        fits = [n for n, cell in zip(self.lengths, row, strict=True) if cell and cell["outcome"] == "fits"]
        fails = [n for n, cell in zip(self.lengths, row, strict=True) if cell and cell["outcome"] == "oom"]
        if not fits:
            return "none" if fails else "–"
        above = [n for n in fails if n > max(fits)]
        return tokens(max(fits)) + ("" if above else "+")


def verdict_tables(frame: pd.DataFrame) -> list[VerdictTable]:
    """One table for each device and model in `frame` (rows of cases, each case once)."""
    frame = frame.assign(attention_used=frame["attention"].fillna(frame["attention_requested"]))
    return [_table(rows) for _, rows in frame.groupby(GROUP, dropna=False, sort=True)]


def _table(rows: pd.DataFrame) -> VerdictTable:
    first = rows.iloc[0]
    simulated = first["device_kind"] == "simulated"
    limit = first["vram_limit_bytes"]
    limit_bytes = first["device_total_bytes"] if _missing(limit) else limit
    varying = [name for name in LINE[3:] if rows[name].nunique() > 1]
    keys = rows[LINE].drop_duplicates().to_dict("records")
    lines = sorted(keys, key=lambda k: (k["bpw"], _CACHE_ORDER.index(k["cache"]), k["lazy"], *map(str, k.values())))
    lengths = sorted(int(n) for n in rows["max_seq_len"].unique())
    found = {
        (tuple(row[name] for name in LINE), int(row["max_seq_len"])): row
        for row in rows.sort_values("started_at").to_dict("records")
    }
    cells = [[found.get((tuple(line[name] for name in LINE), n)) for n in lengths] for line in lines]
    what = "simulated" if simulated else "measured"
    limited = "" if _missing(limit) else f", limited to {size(limit)}"
    others = f" (lines also differ in {', '.join(varying)})" if varying else ""
    title = (
        f"{first['model']} on {first['device_name']} ({what}): {size(first['device_total_bytes'])} card{limited}, "
        f"attention {first['attention_used']}{others}"
    )
    parts = [first["model"], first["device_name"], first["attention_used"]]
    parts += [] if _missing(limit) else [f"{int(limit) >> 20}mib"]
    parts += [] if _missing(first["device_uuid"]) else [str(first["device_uuid"])[-6:]]
    notes = sorted({str(note) for row in rows["notes"] if row is not None for note in row})
    notes += sorted({str(e) for e in rows.loc[~rows["outcome"].isin(["fits", "oom"]), "error"] if not _missing(e)})
    return VerdictTable(
        title=title,
        slug="-".join(str(part) for part in parts),
        simulated=simulated,
        limit_bytes=None if _missing(limit_bytes) else int(limit_bytes),
        lines=lines,
        lengths=lengths,
        cells=cells,
        notes=notes,
    )


def _missing(value: Any) -> bool:
    return value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["outcome"] == "fits":
        return gib(row["peak_device_bytes"])
    return _SHORT.get(row["outcome"], row["outcome"]) + (f" {row['phase']}" if row["outcome"] == "oom" else "")


def _header(table: VerdictTable) -> list[str]:
    return ["bpw", "cache", "how", *(tokens(n) for n in table.lengths), "fits up to"]


def _body(table: VerdictTable) -> list[list[str]]:
    return [
        [*table.line_label(line), *(_cell(cell) for cell in table.cells[i]), table.fits_up_to(i)]
        for i, line in enumerate(table.lines)
    ]


def as_markdown(table: VerdictTable) -> str:
    header, body = _header(table), _body(table)
    rule = ["---:", "---", "---", *["---:"] * len(table.lengths), "---:"]
    lines = [f"### {table.title}", "", "Peak VRAM in GiB, or where it ran out.", ""]
    lines += ["| " + " | ".join(row) + " |" for row in (header, rule, *body)]
    lines += [""] + [f"- {note}" for note in table.notes]
    return "\n".join(lines).rstrip() + "\n"


def as_rich(table: VerdictTable) -> Table:
    """For the terminal, at home in 80 columns."""
    rich = Table(title=table.title, title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    for i, name in enumerate(_header(table)):
        rich.add_column(name, justify="left" if i in (1, 2) else "right", no_wrap=True)
    last_bpw = None
    for row in _body(table):
        if last_bpw not in (None, row[0]):
            rich.add_section()
        last_bpw = row[0]
        rich.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    rich.caption = "peak VRAM in GiB, or where it ran out; + not seen to fail" + "".join(f"\n{n}" for n in table.notes)
    rich.caption_justify = "left"
    return rich


def _style(cell: str) -> str:
    return "yellow" if cell.startswith("OOM") or cell == "none" else ""


def as_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows for CSV: what identifies a case, its verdict and its sizes, raw."""
    hidden = {"environment", "telemetry", "phases", "prefill_samples_s", "decode_samples_s", "decode_full_samples_s"}
    return frame[[name for name in frame.columns if name not in hidden]].sort_values([*GROUP[:5], *LINE, "max_seq_len"])
