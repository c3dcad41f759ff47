"""What the tables of one card and one model have in common: which rows they hold, their lines, and their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Self, TypeVar

import pandas as pd

from bench.report.format import size
from bench.report.rows import plain, plain_groups

# What makes one table: rows that differ in any of these are never shown as one.
CARD_AND_MODEL = [
    *("device_kind", "device_name", "device_uuid", "vram_limit_bytes", "vram_limit_by", "model", "model_fingerprint")
]
# What tells lines apart, and is shown only where it differs within the table.
OPTIONAL = ["attention", "head_bits", "batch_size", "max_input_len"]
CACHES = ("FP16", "Q8", "Q6", "Q4")
SHORT = {"timeout": "timed out", "unsupported": "n/a", "degraded": "spilled"}

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CardTable(ABC):
    """One card and one model. `rows` (never none) are in the order of their time; each of `lines` holds what its cells
    have in common; `cells[i][j]` is the row of line i in column j, None where there is none. `marked`: named with the
    model's fingerprint, because another model has the same name.
    """

    rows: list[Row]
    lines: list[Row]
    cells: list[list[Row | None]]
    marked: bool = False

    @property
    @abstractmethod
    def legend(self) -> str:
        """How to read a cell."""

    @property
    @abstractmethod
    def notes(self) -> list[str]:
        """What else a reader should know, each in a line."""

    @abstractmethod
    def header(self) -> list[str]: ...

    @abstractmethod
    def body(self) -> list[list[str]]: ...

    def told_apart(self) -> Self:
        return replace(self, marked=True)

    @property
    def title(self) -> str:
        attention = f", {self.attentions[0]} attention" if len(self.attentions) == 1 else ""
        return f"{self.rows[0]['model']} on {self.card}{attention}{self.mark}"

    @property
    def card(self) -> str:
        """`rtx_4090 (simulated), 23.52 GiB`."""
        first, limit = self.rows[0], self.rows[0]["vram_limit_bytes"]
        what = "simulated" if self.simulated else "measured"
        capped = " by PyTorch's allocator" if first["vram_limit_by"] == "allocator" else ""
        limited = "" if limit is None else f" limited to {size(limit)}{capped}"
        return f"{first['device_name']} ({what}), {size(first['device_total_bytes'])}{limited}"

    @property
    def slug(self) -> str:
        parts = [self.rows[0]["model"], self.rows[0]["device_name"], *self.attentions, *self._told_by]
        parts += [self._fingerprint] if self.marked else []
        return "-".join(str(part) for part in parts)

    @property
    def card_slug(self) -> str:
        """The card's part of `slug`."""
        return "-".join([self.rows[0]["device_name"], *self._told_by])

    @property
    def simulated(self) -> bool:
        return bool(self.rows[0]["device_kind"] == "simulated")

    @property
    def limit_bytes(self) -> int | None:
        first = self.rows[0]
        limit: int | None = first["vram_limit_bytes"] or first["device_total_bytes"]
        return limit

    @property
    def native_max_seq_len(self) -> int | None:
        native: int | None = self.rows[0]["native_max_seq_len"]
        return native

    @property
    def answered(self) -> bool:
        """Whether any cell says what fits, so that there is something to draw."""
        return any(row and row["outcome"] in ("fits", "oom") for cells in self.cells for row in cells)

    @property
    def varying(self) -> list[str]:
        """Of what tells lines apart, what does so here. None, as the head_bits of unquantised weights, is no value."""
        return [name for name in OPTIONAL if len({line[name] for line in self.lines} - {None}) > 1]

    @property
    def assumptions(self) -> list[str]:
        """What the rows say was assumed."""
        return sorted({str(note) for row in self.rows for note in (row["notes"] if row["notes"] is not None else [])})

    @property
    def attentions(self) -> list[str]:
        """The back ends that its rows ran with, or asked for."""
        return list(dict.fromkeys(row["attention"] or "unknown" for row in self.rows))

    @property
    def mark(self) -> str:
        """What follows the model's name where another model has the same."""
        return f" [{self._fingerprint}]" if self.marked else ""

    @property
    def _told_by(self) -> list[str]:
        """What tells a card from others of its name."""
        limit, uuid = self.rows[0]["vram_limit_bytes"], self.rows[0]["device_uuid"]
        capped = ["capped"] if self.rows[0]["vram_limit_by"] == "allocator" else []
        return ([] if limit is None else [f"{limit >> 20}mib"]) + capped + ([] if uuid is None else [uuid[-6:]])

    @property
    def _fingerprint(self) -> str:
        return (self.rows[0]["model_fingerprint"] or "unknown")[:6]


_Table = TypeVar("_Table", bound=CardTable)


def card_tables(
    frame: pd.DataFrame, moment: str, make: Callable[[list[Row]], _Table], by_attention: bool
) -> Iterator[_Table]:
    """One table at a time for each card and model in `frame`, by `make` from its rows in the order of their `moment`.

    With `by_attention` each attention back end has a table of its own.
    """
    if frame.empty:
        return
    frame = frame.assign(attention=frame["attention"].fillna(frame["attention_requested"]))
    if not frame[moment].is_monotonic_increasing:
        frame = frame.sort_values(moment)
    keys = [*CARD_AND_MODEL, "attention"] if by_attention else CARD_AND_MODEL
    heads: dict[tuple[Any, ...], list[Row]] = {}
    for row in plain(frame.drop_duplicates([*CARD_AND_MODEL, "attention"])):  # all that a name is made of
        heads.setdefault(itemgetter(*keys)(row), []).append(row)
    slugs = Counter(make(rows).slug for rows in heads.values())
    number = frame.groupby(keys, dropna=False, sort=True).ngroup().to_numpy()
    for rows in plain_groups(frame, number):
        table = make(rows)
        yield table if slugs[table.slug] == 1 else table.told_apart()


def card_table_count(frame: pd.DataFrame) -> int:
    """How many tables `card_tables` makes of `frame` where each attention back end has one of its own."""
    if frame.empty:
        return 0
    named = frame[CARD_AND_MODEL].assign(attention=frame["attention"].fillna(frame["attention_requested"]))
    return len(named.drop_duplicates())


def lines_of(rows: list[Row], names: Sequence[str]) -> list[Row]:
    """The distinct values of `names`, by bits, then cache from large to small, then lazy loading last."""
    lines = [dict(zip(names, key, strict=True)) for key in dict.fromkeys(map(itemgetter(*names), rows))]

    def place(line: Row) -> tuple[Any, ...]:
        cache = CACHES.index(line["cache"]) if "cache" in line else 0
        return line["bpw"], cache, line["lazy"], *((value is not None, value) for value in line.values())

    return sorted(lines, key=place)


def how(line: Row) -> str:
    """The two ways of loading, as columns name them."""
    return "lazy" if line["lazy"] else "load"
