"""All pictures of a set of rows, as files. Many are drawn by a process of their own, while the tables are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench.core.lifeline import serve_parent
from bench.report.naming.models import CARD_AND_MODEL, Names
from bench.report.plots.boundary import MOST_PANELS, draw_boundaries
from bench.report.plots.engines import draw_engines
from bench.report.plots.grid import MOST_ROWS
from bench.report.plots.jobs import draw_jobs, draw_users, of_several_jobs
from bench.report.plots.memory import draw_memory
from bench.report.plots.panels import BY_ATTENTION, Card, Most, Table, cards
from bench.report.plots.peaks import draw_peaks
from bench.report.plots.speeds import draw_speeds
from bench.report.plots.style import save
from bench.report.tables.boundaries import boundary_tables
from bench.report.tables.caches import cache_tables, of_caches, of_lengths, of_several_lengths
from bench.report.tables.engines import engines_tables, of_several_engines
from bench.report.tables.parts import with_parts
from bench.report.tables.speeds import of_several_sizes, speed_tables
from bench.report.tables.verdicts import verdict_tables

# So many are drawn before another process has started and imported what it needs.
_FEW = 6

Pictures = tuple[list[Path], list[str]]


@contextmanager
def drawing(
    asked: pd.DataFrame, cases: pd.DataFrame, boundaries: pd.DataFrame, out_dir: Path, names: Names | None = None
) -> Iterator[Callable[[], Pictures]]:
    """Draws seven kinds of pictures to `out_dir`, one of each a card, as PNG and SVG.

    `CARD-boundary`, `CARD-memory`, `CARD-jobs` (where a generator was asked for several numbers of jobs), `CARD-users`
    (where its largest cache was searched for jobs of several lengths) and `CARD-engines` (where several engines have an
    answer for a model) are of `boundaries`, with what `cases` know of them; `CARD-peaks` is of `asked`, the cases that
    are shown one by one, and `CARD-speed` of those that were run with several batch sizes. Gives what waits for them:
    the files, and in words what has no picture.
    """
    names = names or Names.of_frames(cases, boundaries)
    plan = _Plan(out_dir, names)
    speeds = of_several_sizes(cases)
    caches, boundaries = of_caches(boundaries), with_parts(of_lengths(boundaries), cases)
    to_caches = partial(cache_tables, by_attention=True, names=names)
    to_tables = partial(boundary_tables, by_attention=True, names=names)
    planned = chain(
        plan.pictures(boundaries, to_tables, MOST_PANELS, draw_boundaries, "boundary"),
        plan.pictures(boundaries, to_tables, MOST_ROWS, draw_memory, "memory"),
        plan.pictures(of_several_jobs(boundaries), to_tables, MOST_ROWS, draw_jobs, "jobs"),
        plan.pictures(of_several_lengths(caches), to_caches, MOST_ROWS, draw_users, "users"),
        plan.pictures(
            of_several_engines(boundaries),
            partial(engines_tables, names=names),
            MOST_ROWS,
            draw_engines,
            "engines",
            CARD_AND_MODEL,
        ),
        plan.pictures(speeds, partial(speed_tables, by_attention=True, names=names), MOST_ROWS, draw_speeds, "speed"),
        plan.pictures(asked, partial(verdict_tables, by_attention=True, names=names), MOST_ROWS, draw_peaks, "peaks"),
    )
    del asked, cases, boundaries, caches, speeds  # nothing here may outlive its use: there may be a million rows
    first = list(islice(planned, _FEW + 1))
    if len(first) <= _FEW:
        made = [picture() for picture in first]
        yield lambda: plan.told(made)
        return
    # Spawned, as a process with pyarrow's threads cannot be forked; and one, as tables keep another core busy.
    with ProcessPoolExecutor(1, get_context("spawn"), serve_parent) as pool:
        try:
            waited = [_asked(pool, picture) for picture in chain(first, planned)]
            yield lambda: plan.told(map(_result, waited))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _asked(pool: ProcessPoolExecutor, picture: Callable[[], Pictures]) -> Future[Pictures]:
    try:
        return pool.submit(picture)
    except BrokenProcessPool as broken:  # before all were asked for
        failed: Future[Pictures] = Future()
        failed.set_exception(broken)
        return failed


def _result(waited: Future[Pictures]) -> Pictures:
    try:
        return waited.result()
    except BrokenProcessPool:
        return [], ["not all plots were drawn: the process that draws them was killed, for want of memory perhaps"]


class _Plan:
    """What is to be drawn, no file twice, and what is not, in words."""

    def __init__(self, out_dir: Path, names: Names) -> None:
        self._out_dir = out_dir
        self._names = names
        self._stems: set[Path] = set()
        self._words: list[str] = []

    def pictures(
        self,
        frame: pd.DataFrame,
        tables_of: Callable[[pd.DataFrame], Iterable[Table]],
        most: Most,
        draw: Callable[[Card[Table]], Figure | None],
        kind: str,
        panel: Sequence[str] = BY_ATTENTION,
    ) -> Iterator[Callable[[], Pictures]]:
        """What draws each picture of one kind, here or in another process."""
        drawn, words = cards(frame, tables_of, most, self._names, panel)
        self._words += words
        for card in drawn:
            yield partial(_draw, draw, card, kind, self._free(f"{card.slug}-{kind}"))

    def told(self, made: Iterable[Pictures]) -> Pictures:
        pictures = list(made)
        words = chain(self._words, *(words for _, words in pictures))
        return list(chain(*(files for files, _ in pictures))), list(dict.fromkeys(words))

    def _free(self, name: str) -> Path:
        """Cards that differ may have the same name: a simulated one and a real one without a UUID."""
        stem, n = self._out_dir / name, 1
        while stem in self._stems:
            n += 1
            stem = self._out_dir / f"{name}-{n}"
        self._stems.add(stem)
        return stem


def _draw(draw: Callable[[Card[Any]], Figure | None], card: Card[Any], kind: str, stem: Path) -> Pictures:
    figure = draw(card)
    if figure is not None:
        return save(figure, stem), []
    if any(pd.notna(row.get("fits_at", 0)) for table in card.tables for row in table.rows):
        return [], [f"no {kind} plot for {card.tables[0].names.card(card.tables[0].rows[0])}: no row tells the memory"]
    return [], []
