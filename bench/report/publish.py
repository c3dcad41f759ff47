"""Everything that a set of rows can be shown as, written to one folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.errors import BadInput
from bench.report import plots
from bench.report.console import console_for
from bench.report.tables import as_frame, as_markdown, as_rich, verdict_tables


def publish(frame: pd.DataFrame, out_dir: Path, echo: bool) -> list[Path]:
    """Writes tables and plots of `frame` (rows of cases) to `out_dir`; `echo` also prints the tables."""
    tables = verdict_tables(frame)
    files = [out_dir / "tables.md", out_dir / "cases.csv"]
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        files[0].write_text("\n".join(as_markdown(table) for table in tables), encoding="utf-8")
        as_frame(frame).to_csv(files[1], index=False)
        for table in verdict_tables(frame, by_attention=True):
            if any(cell and cell["outcome"] in ("fits", "oom") for row in table.cells for cell in row):
                files.append(out_dir / f"{table.slug}.png")
                plots.save(plots.draw(table), files[-1])
    except OSError as error:
        raise BadInput(f"{out_dir}: cannot be written ({error.strerror}); choose another folder") from None
    if echo:
        console = console_for()
        for table in tables:
            console.print(as_rich(table))
            console.print()
        for file in files:
            console.print(str(file), highlight=False, soft_wrap=True)
    return files
