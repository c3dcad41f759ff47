"""Texts of cards and settings as tables: the cards as rows, the settings as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.report.text.plain_table import PlainTable

_MOST_COLUMNS = 10  # of one table; with more of them each model has its own, then each bpw

Setting = tuple[str, ...]  # the words that name a column: model, bits, cache, loading and what else varies


def crossed(cells: Sequence[tuple[str, Setting, str]], order: Sequence[Setting], legend: str) -> list[PlainTable]:
    """A line for each card, in the order of `cells` (card, setting, text), a column for each setting, in that of
    `order`; none of a single card. What all columns have in common stands in the title.
    """
    tables = []
    for settings in _together(list(dict.fromkeys(order)), 0):
        of_card: dict[str, dict[Setting, str]] = {}
        for card, setting, text in cells:
            if setting in settings:
                of_card.setdefault(card, {})[setting] = text
        if len(of_card) > 1:
            tables.append(_table(of_card, settings, legend))
    return tables


def _together(settings: list[Setting], word: int) -> list[list[Setting]]:
    """No more in a table than can be read: apart by their model, then by their bits."""
    if len(settings) <= _MOST_COLUMNS or word > 1:
        return [settings]
    values = dict.fromkeys(setting[word] for setting in settings)
    groups = [[setting for setting in settings if setting[word] == value] for value in values]
    return [part for group in groups for part in _together(group, word + 1)]


def _table(of_card: Mapping[str, Mapping[Setting, str]], settings: list[Setting], legend: str) -> PlainTable:
    common = [len({setting[i] for setting in settings}) == 1 for i in range(len(settings[0]))]
    names = [
        " ".join(word for word, same in zip(setting, common, strict=True) if word and not same) or "max_seq_len"
        for setting in settings
    ]
    title = ", ".join(word for word, same in zip(settings[0], common, strict=True) if word and same)
    return PlainTable(
        title=f"All cards: {title}" if title else "All cards",
        legend=legend,
        columns=["card", *names],
        lines=[[card, *(own.get(setting, "") for setting in settings)] for card, own in of_card.items()],
    )
