"""What each of several cards held, of cases on machines."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import pandas as pd

from bench.core.columns import CaseRow, MemoryRow
from bench.core.outcome import Outcome
from bench.report.naming.axes import Axes, how
from bench.report.naming.models import Names
from bench.report.rows import rows_of
from bench.report.text.plain_table import PlainTable, card_key
from bench.report.text.units import gib, tokens
from bench.report.text.verdicts import in_a_cell

_LEGEND = (
    "GiB of each card at its own peak: all that it held, weights and cache in it, and what was left. layers: how many "
    "have keys and values there."
)
# Each mark that stands in a table, and what it says.
_RAN_OUT, _DECIDES = " *", " ‡"
_MARKS = {
    _DECIDES: "‡ decides: the last that split=auto fills, or the one with the least left.",
    _RAN_OUT: "* ran out of memory.",
}


def memory_tables(cases: pd.DataFrame, memory: pd.DataFrame, names: Names) -> list[PlainTable]:
    """A table for each machine and model, of those of `cases` whose cards are told in `memory`."""
    if memory.empty or cases.empty:
        return []
    told = memory.drop_duplicates(["run_id", "case_id", "card"], keep="last")
    cards = {key: rows_of(group, MemoryRow) for key, group in told.groupby(["run_id", "case_id"])}
    several = rows_of(cases[cases["device_cards"].notna()], CaseRow)
    shown = [row for row in several if (row["run_id"], row["case_id"]) in cards]
    shown.sort(
        key=lambda row: (*map(str, _place(row)), row["bpw"], row["cache"], str(row["split"]), row["max_seq_len"])
    )
    tables = []
    for _, group in groupby(shown, _place):
        rows = list(group)
        tables.append(_table([(row, cards[row["run_id"], row["case_id"]]) for row in rows], names))
    return tables


def at_boundaries(cases: pd.DataFrame, boundaries: pd.DataFrame) -> pd.DataFrame:
    """The cases without those that were run to find a boundary, but for the one that fits there."""
    if boundaries.empty or cases.empty:
        return cases
    probes = boundaries[["fits_at", "case_ids"]].explode("case_ids").dropna(subset=["case_ids"])
    found = probes.merge(cases[["case_id", "max_seq_len"]], left_on="case_ids", right_on="case_id")
    there = set(found.loc[found["fits_at"] == found["max_seq_len"], "case_id"])
    return cases[~cases["case_id"].isin(set(probes["case_ids"]) - there)]


def _place(row: CaseRow) -> tuple[object, ...]:
    return (card_key(row), row["model"], row["model_fingerprint"])


def _table(cases: list[tuple[CaseRow, list[MemoryRow]]], names: Names) -> PlainTable:
    first = cases[0][0]
    axes = Axes([case for case, _ in cases], beside=("max_seq_len",))
    marks = {_mark(case, card) for case, cards in cases for card in cards}
    return PlainTable(
        title=f"{names.model(first)} on the cards of {names.card_title(first)}",
        legend=" ".join([_LEGEND, *(words for mark, words in _MARKS.items() if mark in marks)]),
        columns=[
            *("bpw", "cache", "how", *axes.varying, "max_seq_len"),
            *("card", "layers", "weights", "cache GiB", "held", "left"),
        ],
        lines=[line for case, cards in cases for line in _lines(case, cards, axes)],
        varying=[*axes.varying, "max_seq_len"],
        card_key=card_key(first),
    )


def _lines(case: CaseRow, cards: Iterable[MemoryRow], axes: Axes) -> Iterable[list[str]]:
    setting = [axes.bits(case), case["cache"], how(case), *axes.cells(case), tokens(case["max_seq_len"])]
    # How a case ended that does not fit, below its length: the figures beside it are of an attempt.
    below = [""] * len(setting)
    below[-1] = "" if case["outcome"] == Outcome.FITS else in_a_cell(case["outcome"], case["phase"])
    for number, card in enumerate(sorted(cards, key=lambda card: card["card"])):
        yield [
            *(setting if number == 0 else below if number == 1 else [""] * len(setting)),
            f"{card['card']}: {card['device_name']}{_mark(case, card)}",
            "–" if card["layers"] is None else str(card["layers"]),
            gib(card["weights_bytes"], 2),
            gib(card["cache_bytes"], 2),
            gib(card["peak_device_bytes"], 2),
            gib(card["headroom_bytes"], 2),
        ]


def _mark(case: CaseRow, card: MemoryRow) -> str:
    return _RAN_OUT if card["ran_out"] else _DECIDES if card["card"] == case["tightest_card"] else ""
