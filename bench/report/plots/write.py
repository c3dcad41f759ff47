"""All pictures of a set of rows, as files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bench.report.boundaries import boundary_tables
from bench.report.plots.boundary import MOST_PANELS, draw_boundaries
from bench.report.plots.grid import MOST_ROWS
from bench.report.plots.memory import draw_memory, with_parts
from bench.report.plots.panels import Card, Most, Table, cards
from bench.report.plots.peaks import draw_peaks
from bench.report.plots.style import save
from bench.report.tables import verdict_tables


def write_plots(
    asked: pd.DataFrame, cases: pd.DataFrame, boundaries: pd.DataFrame, out_dir: Path
) -> tuple[list[Path], list[str]]:
    """Writes three kinds of pictures to `out_dir`, one of each a card, as PNG and SVG: `CARD-boundary` and
    `CARD-memory` of `boundaries` (with what `cases` know of them), `CARD-peaks` of `asked`, the cases that are shown
    one by one. Returns the files, and in words what has no picture.
    """
    made = _Made(out_dir)
    boundaries = with_parts(boundaries, cases)
    to_tables = partial(boundary_tables, by_attention=True)
    made.draw(boundaries, to_tables, MOST_PANELS, draw_boundaries, "boundary")
    made.draw(boundaries, to_tables, MOST_ROWS, draw_memory, "memory")
    made.draw(asked, partial(verdict_tables, by_attention=True), MOST_ROWS, draw_peaks, "peaks")
    return made.files, list(dict.fromkeys(made.words))


class _Made:
    """What has been written so far; no file twice."""

    def __init__(self, out_dir: Path) -> None:
        self._out_dir = out_dir
        self.files: list[Path] = []
        self.words: list[str] = []

    def draw(
        self,
        frame: pd.DataFrame,
        tables_of: Callable[[pd.DataFrame], Iterable[Table]],
        most: Most,
        picture: Callable[[Card[Table]], Figure | None],
        kind: str,
    ) -> None:
        drawn, words = cards(frame, tables_of, most)
        self.words += words
        for card in drawn:
            figure = picture(card)
            if figure is not None:
                self.files += save(figure, self._free(f"{card.slug}-{kind}"))
            elif any(pd.notna(row.get("fits_at", 0)) for table in card.tables for row in table.rows):
                name = card.tables[0].rows[0]["device_name"]
                self.words.append(f"no {kind} plot for {name}: no row tells the memory")

    def _free(self, name: str) -> Path:
        """Cards that differ may have the same name: a simulated one and a real one without a UUID."""
        stem, n = self._out_dir / name, 1
        while stem.with_name(f"{stem.name}.png") in self.files:
            n += 1
            stem = self._out_dir / f"{name}-{n}"
        return stem
