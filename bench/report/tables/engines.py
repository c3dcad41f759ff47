"""How far it goes with one engine and with another: their boundaries side by side, for a model on a card.

A column is of a cache and an engine. Lines are told apart by what both can be asked for; what each engine has of its
own, such as its attention, is of its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import pandas as pd

from bench.core.caches import coarseness
from bench.core.case import DEFAULT_ENGINE
from bench.core.identity import known
from bench.engines.registry import NAMES, engine_of
from bench.report.naming.axes import plain_number, telling
from bench.report.naming.models import CARD_AND_MODEL, Names
from bench.report.naming.ways import Way, Ways
from bench.report.tables.boundaries import BoundaryTable
from bench.report.tables.card import OPTIONAL, Line, card_tables, lines_of
from bench.report.tables.parts import BoundaryAtFit

_ANSWERS = ("fits", "oom")
_OWN = ("attention", "allocator", "max_attention_size")  # what an engine has in its own way, or not at all
_LINE = ["bpw", "lazy", *(name for name in OPTIONAL if name not in (*_OWN, "engine"))]


class EngineColumn(NamedTuple):
    """A cache with an engine; `own` tells several of one engine apart: `sdpa`."""

    cache: str
    engine: str
    own: str

    @property
    def weights(self) -> str:
        """What the engine loads: `EXL3`; with what tells its columns apart."""
        return " ".join(filter(None, [engine_of(self.engine).weights.quantised, self.own]))


@dataclass(frozen=True, kw_only=True)
class EnginesTable(BoundaryTable):
    """A column for each of `engine_columns`, as `caches` names them."""

    engine_columns: list[EngineColumn]

    @property
    def title(self) -> str:
        """The formats, the model and the card."""
        return f"{self.formats}: {self.model} on {self.card}"

    @property
    def engines(self) -> list[str]:
        """The engines by name."""
        return [name for name in NAMES if any(column.engine == name for column in self.engine_columns)]

    @property
    def formats(self) -> str:
        """`EXL2 or EXL3`."""
        return " or ".join(engine_of(name).weights.quantised for name in self.engines)

    @property
    def common_caches(self) -> list[str]:
        """Those that several engines have."""
        caches = dict.fromkeys(column.cache for column in self.engine_columns)
        return [cache for cache in caches if len(self._having(cache)) > 1]

    def _having(self, cache: str) -> list[str]:
        return list(dict.fromkeys(column.engine for column in self.engine_columns if column.cache == cache))

    @property
    def legend(self) -> str:
        """Whose the columns are, and what must not be read into a line."""
        specs = [engine_of(name) for name in self.engines]
        runs = ", ".join(f"{spec.weights.quantised} runs with {spec.title}" for spec in specs)
        return " ".join([super().legend, f"{runs}.", self.caution, *self._unlike_caches()])

    @property
    def caution(self) -> str:
        """What must not be read into as many bits."""
        formats = " and ".join(engine_of(name).weights.quantised for name in self.engines)
        return f"As many bits per weight are not the same quality in {formats}: memory alone is compared."

    def _unlike_caches(self) -> list[str]:
        """Caches of one name that are not the same."""
        said = []
        for cache in self.common_caches:
            bits = {name: engine_of(name).caches[cache] for name in self._having(cache)}
            if len({(each.key_bits, each.value_bits) for each in bits.values()}) > 1:
                kinds = [f"{e.key_bits} and {e.value_bits} bits with {engine_of(n).title}" for n, e in bits.items()]
                said.append(f"{cache} has keys and values of {', '.join(kinds)}.")
        return said


class EngineWays:
    """The ways to run a model in `tables`, with what tells several columns of one engine apart."""

    def __init__(self, tables: Sequence[EnginesTable]) -> None:
        self._ways = Ways(line for table in tables for line in table.lines)
        pairs = [(line, column) for table in tables for line in table.lines for column in table.engine_columns]
        order = {way: number for number, way in enumerate(self._ways.all)}
        ordered = sorted(pairs, key=lambda pair: (order[self._ways.of(pair[0])], pair[1].own))
        self.all = list(dict.fromkeys(self.of(line, column) for line, column in ordered))

    def of(self, line: Line, column: EngineColumn) -> Way:
        """The way of a cell."""
        way = self._ways.of(line)
        return Way(way.lazy, ", ".join(filter(None, [way.others, column.own])))

    @property
    def are_named(self) -> bool:
        """Whether more than loading tells them apart."""
        return any(way.others for way in self.all)


def engines_tables(frame: pd.DataFrame, names: Names | None = None) -> list[EnginesTable]:
    """One table for each card and model in `frame` (rows of boundaries) that several engines have an answer for."""
    tables = card_tables(of_several_engines(frame), "finished_at", BoundaryAtFit, _table, False, names)
    return sorted(tables, key=lambda table: (table.simulated, table.rows[0]["model"], table.limit_bytes or 0))


def of_several_engines(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of cards and models for which more than one engine has an answer."""
    if frame.empty:
        return frame
    engine = frame["engine"].fillna(DEFAULT_ENGINE)
    if engine.nunique() < 2:
        return frame.iloc[:0]
    answered = frame.assign(engine=engine.where(frame["outcome"].isin(_ANSWERS)))
    count = answered.groupby(CARD_AND_MODEL, dropna=False)["engine"].transform("nunique")
    return frame[count > 1]


def _table(rows: list[BoundaryAtFit], names: Names) -> EnginesTable:
    lines = lines_of(rows, _LINE)
    column_of = _columns(rows)
    columns = sorted(set(column_of), key=_place)
    key = itemgetter(*_LINE)
    found = {(key(row), column): row for row, column in zip(rows, column_of, strict=True)}
    cells = [[found.get((tuple(line.values()), column)) for column in columns] for line in lines]
    titles = [f"{column.cache} {column.weights}" for column in columns]
    return EnginesTable(names=names, rows=rows, lines=lines, caches=titles, cells=cells, engine_columns=columns)


def _columns(rows: Sequence[BoundaryAtFit]) -> list[EngineColumn]:
    """The column of each row."""
    of_engine: dict[str, list[Any]] = {}
    for row in rows:
        of_engine.setdefault(row["engine"] or DEFAULT_ENGINE, []).append(row)
    varying = {engine: telling(own, _OWN, ("cache", *_LINE)) for engine, own in of_engine.items()}
    columns = []
    for row in rows:
        engine = row["engine"] or DEFAULT_ENGINE
        own = [plain_number(value) for name in varying[engine] if (value := known(row.get(name))) is not None]
        columns.append(EngineColumn(row["cache"], engine, " ".join(own)))
    return columns


def _place(column: EngineColumn) -> tuple[Any, ...]:
    return coarseness(column.cache), column.cache, NAMES.index(column.engine), column.own
