"""What the cards beside the first gain: how far a model goes on a machine, beside its first card alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from bench.core.caches import coarseness
from bench.core.columns import LIMIT, MODEL, SETTING, BoundaryRow
from bench.core.identity import key_of, known
from bench.core.outcome import Outcome
from bench.core.split import Split
from bench.report.naming.axes import Axes
from bench.report.naming.models import Names
from bench.report.rows import rows_of
from bench.report.tables.best_rule import WANTED_TOKENS
from bench.report.tables.boundaries import cell_of, marks_in_words
from bench.report.text.ends import is_lower_bound, is_own_limit
from bench.report.text.plain_table import PlainTable, card_key
from bench.report.text.units import tokens

_ANSWERS = (Outcome.FITS, Outcome.OOM)
# How it is loaded and split differs between one card and several: the longest of each counts.
_HOW = ("lazy", "split")
_OTHERS = [name for name in SETTING if name not in ("bpw", "cache", *_HOW)]
_LEGEND = (
    "The largest max_seq_len that fits, the longest of all ways to load and to split that were tried; by: how the "
    "machine does it."
)


def more_cards_tables(boundaries: pd.DataFrame, names: Names) -> list[PlainTable]:
    """A table for each machine and model of which the first card was asked alone, too; none where no such pair is."""
    if boundaries.empty or boundaries["device_cards"].isna().all():
        return []
    answered = boundaries[boundaries["outcome"].isin(_ANSWERS) & boundaries[[*LIMIT]].isna().all(axis=1)]
    rows = rows_of(answered, BoundaryRow)
    alone: dict[Any, list[BoundaryRow]] = {}
    for row in rows:
        if known(row["device_cards"]) is None:
            alone.setdefault((_card(row), key_of(row, MODEL)), []).append(row)
    machines: dict[Any, list[BoundaryRow]] = {}
    for row in rows:
        if known(row["device_cards"]) is not None:
            machines.setdefault((card_key(row), key_of(row, MODEL)), []).append(row)
    pairs = [(together, alone.get((_first(together[0]), model), [])) for (_, model), together in machines.items()]
    tables = [_table(together, first, names) for together, first in pairs]
    return [table for table in tables if table.lines]


def _card(row: BoundaryRow) -> tuple[Any, ...]:
    """What tells a card alone from others, as far as a machine says it of its own."""
    return row["device_name"], row["device_kind"], row["device_total_bytes"], known(row["device_context_bytes"])


def _first(row: BoundaryRow) -> tuple[Any, ...]:
    """The same of the first card of a machine."""
    first = json.loads(str(row["device_cards"]))[0]
    return first["name"], first["kind"], first["total_memory_bytes"], first["context_bytes"]


def _table(together: Sequence[BoundaryRow], alone: Sequence[BoundaryRow], names: Names) -> PlainTable:
    """The settings that both were asked for, finest bits and caches first."""
    of_one, of_all = _longest(alone), _longest(together)
    both = [key for key in of_all if key in of_one]
    both.sort(key=lambda key: (-key[0], coarseness(key[1]), str(key[2:])))
    axes = Axes([of_all[key] for key in both], _OTHERS)
    first, lines = str(json.loads(str(together[0]["device_cards"]))[0]["name"]), []
    for key in both:
        one, every = of_one[key], of_all[key]
        split = known(every["split"])
        by = "–" if split is None else Split.parse(split).typed
        numbers = [cell_of(one), cell_of(every), _gained(one, every)]
        lines.append([axes.bits(every), every["cache"], *axes.cells(every), *numbers, by])
    rows = [row for key in both for row in (of_one[key], of_all[key])]
    return PlainTable(
        title=f"What is gained beside {first}: {names.model(together[0])} on {names.card_title(together[0])}",
        legend=" ".join([_LEGEND, *marks_in_words(rows)]),
        columns=["bpw", "cache", *axes.varying, "alone", "together", "gained", "by"],
        lines=lines,
        notes=list(_in_bits([(of_one[key], of_all[key]) for key in both], axes)),
        card_key=card_key(together[0]),
    )


def _gained(one: BoundaryRow, every: BoundaryRow) -> str:
    """`+4,096`, `≥ +4,096` or `≤ +4,096` where one of both may go further, `?` where both may, a dash where it is 0."""
    gained = (every["fits_at"] or 0) - (one["fits_at"] or 0)
    if _may_go_further(one) and _may_go_further(every):
        return "?"
    mark = "≥ " if _may_go_further(every) else "≤ " if _may_go_further(one) else ""
    return f"{mark}{gained:+,}" if gained or mark else "–"


def _may_go_further(row: BoundaryRow) -> bool:
    """Whether only the search has ended there, or the end was not found."""
    return is_lower_bound(row) or not row["certified"]


def _longest(rows: Iterable[BoundaryRow]) -> dict[tuple[Any, ...], BoundaryRow]:
    """By bits, cache and the other settings the row that goes furthest."""
    found: dict[tuple[Any, ...], BoundaryRow] = {}
    for row in rows:
        key = row["bpw"], row["cache"], *key_of(row, _OTHERS)
        if key not in found or (row["fits_at"] or 0) > (found[key]["fits_at"] or 0):
            found[key] = row
    return found


def _in_bits(pairs: Sequence[tuple[BoundaryRow, BoundaryRow]], axes: Axes) -> Iterable[str]:
    """For each cache, the most bits with which a wanted length fits alone and together, where those differ."""
    caches: dict[str, tuple[list[float], list[float]]] = {}
    texts: dict[float, str] = {}
    for one, every in pairs:
        lists = caches.setdefault(every["cache"], ([], []))
        texts[every["bpw"]] = axes.bits(every)
        for row, widths in zip((one, every), lists, strict=True):
            if (row["fits_at"] or 0) >= WANTED_TOKENS or is_own_limit(row):
                widths.append(row["bpw"])
    for cache, (alone, together) in caches.items():
        if together and max(together) != max(alone, default=0):
            most = f"up to {texts[max(alone)]} bpw" if alone else "at no bpw that was tried"
            told = f"{tokens(WANTED_TOKENS)} tokens (or all that the model takes)"
            yield f"{cache}: {told} fit alone {most}, together up to {texts[max(together)]} bpw"
