"""How cases and boundaries are named in a comparison: by what tells them apart there, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from bench.core.columns import LIMIT, SETTING, ResultRow, label, usual
from bench.core.identity import key_of
from bench.core.identity_columns import CardColumns
from bench.report.naming.axes import Axes, how
from bench.report.naming.cards import exact_limits, kind_word, limits_in_gib, texts_of
from bench.report.naming.models import Names as RowNames
from bench.report.text.units import exact_size, size, tokens

_Cell = Callable[[ResultRow], str]
# How axes head a narrow column, and in which order columns stand.
_HEADS = {"head_bits": "head", "attention_requested": "attention", "batch_size": "batch", "max_input_len": "input"}
_ORDER = ("card", "limit", "model", "bpw", "head", "cache", "how", "attention", "batch", "input")
_BY_THEMSELVES = ("model", "cache", "how", "max_seq_len")


class Names:
    """The columns that identify a row among `rows`; what all have in common is `constant`."""

    def __init__(self, rows: Sequence[ResultRow]) -> None:
        called, axes = RowNames(rows), Axes(rows)
        limits = texts_of({row["vram_limit_bytes"] for row in rows if row["vram_limit_bytes"]}, (size, exact_size))
        unequal = texts_of({each for row in rows if (each := row["vram_limits"])}, (limits_in_gib, exact_limits))

        def limit(row: ResultRow) -> str:
            capped = " by PyTorch's allocator" if row["vram_limit_by"] == "allocator" else ""
            told = unequal.get(row["vram_limits"]) if row["vram_limits"] else None
            return (told or limits.get(row["vram_limit_bytes"], "–")) + capped

        cells: dict[str, _Cell] = {
            "card": lambda row: called.card(_whole(row)),
            "limit": limit,
            "model": called.model,
            "bpw": axes.bits,
            **{_HEADS.get(name, name): partial(_text, name=name) for name in SETTING if name not in ("bpw", "lazy")},
            "how": how,
            "max_seq_len": _length,
        }
        cells = {name: cells[name] for name in dict.fromkeys([*_ORDER, *cells])}
        values = {name: {cell(row) for row in rows} for name, cell in cells.items()}
        self._cells = {name: cell for name, cell in cells.items() if len(values[name]) > 1 or name == "max_seq_len"}
        same = {name: next(iter(seen)) for name, seen in values.items() if name not in self._cells and len(seen) == 1}
        self.constant = ", ".join(
            _labelled(name, value) for name, value in same.items() if value not in ("–", _unsaid(name))
        )

    @property
    def header(self) -> list[str]:
        """The names of the columns, as in a table's first line."""
        return list(self._cells)

    def cells(self, row: ResultRow) -> list[str]:
        """The cells of `row`, one a column."""
        return [cell(row) for cell in self._cells.values()]

    def title(self, row: ResultRow) -> str:
        """All cells in a line: `l4 tinyllama_1_1b 4 bpw Q4 lazy 2,048`."""
        shown = {name: cell(row) for name, cell in self._cells.items()}
        shown["max_seq_len"] = "boundary" if shown["max_seq_len"] == "auto" else shown["max_seq_len"]
        return " ".join(_labelled(name, value) for name, value in shown.items() if value != "–")


def _unsaid(name: str) -> str | None:
    """What is not worth a word where all rows have it: the usual value of a setting that has no narrow column."""
    return str(usual(name)) if name in SETTING and name not in _ORDER else None


def card_text(row: CardColumns) -> str:
    """`rtx_4090 (simulated)`."""
    return f"{row['device_name']} ({kind_word(row)})"


def _text(row: ResultRow, name: str) -> str:
    (value,) = key_of(row, [name])
    return "–" if value is None else str(value)


def _whole(row: ResultRow) -> CardColumns:
    """The card without the limit inside it, which has a column of its own."""
    return cast(CardColumns, {**row, **dict.fromkeys(LIMIT)})


def _length(row: ResultRow) -> str:
    (length,) = key_of(row, ["max_seq_len"])
    return tokens(length) if length else "auto"


def _labelled(name: str, value: str) -> str:
    """`rtx_4090`, `limited to 8.00 GiB`, `4 bpw`, `batch_size 1`: says by itself what it is."""
    keys = {head: label(column) for column, head in _HEADS.items()}
    words = {"card": "{}", "limit": "limited to {}", "bpw": "{} bpw"} | dict.fromkeys(_BY_THEMSELVES, "{}")
    return words.get(name, f"{keys.get(name, name)} {{}}").format(value)
