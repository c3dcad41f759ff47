"""How cases and boundaries are named in a comparison: by what tells them apart there, and by nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from bench.report.format import size, tokens
from bench.results.pairing import Row

_Cell = Callable[[Row], str]
_KIND_WORDS = {"simulated": "simulated", "cuda": "measured"}


class Names:
    """The columns that identify a row among `rows`; what all have in common is `constant`."""

    def __init__(self, rows: Sequence[Row]) -> None:
        uuids = defaultdict(set)
        for row in rows:
            uuids[row["device_name"]].add(row.get("device_uuid"))

        def card(row: Row) -> str:
            uuid, name = row.get("device_uuid"), _text(row, "device_name")
            return f"{name} {uuid[-6:]}" if uuid and len(uuids[name]) > 1 else name

        cells: dict[str, _Cell] = {
            "card": card,
            "limit": lambda row: size(row.get("vram_limit_bytes")),
            "model": lambda row: _text(row, "model"),
            "bpw": lambda row: f"{row['bpw']:g}",
            "head": lambda row: _text(row, "head_bits"),
            "cache": lambda row: _text(row, "cache"),
            "how": lambda row: "lazy" if row["lazy"] else "load",
            "attention": lambda row: _text(row, "attention_requested"),
            "batch": lambda row: _text(row, "batch_size"),
            "input": lambda row: _text(row, "max_input_len"),
            "max_seq_len": lambda row: tokens(row["max_seq_len"]) if row.get("max_seq_len") else "auto",
        }
        values = {name: {cell(row) for row in rows} for name, cell in cells.items()}
        self._cells = {name: cell for name, cell in cells.items() if len(values[name]) > 1 or name == "max_seq_len"}
        same = {name: next(iter(seen)) for name, seen in values.items() if name not in self._cells and len(seen) == 1}
        self.constant = ", ".join(_labelled(name, value) for name, value in same.items() if value != "–")

    @property
    def header(self) -> list[str]:
        return list(self._cells)

    def cells(self, row: Row) -> list[str]:
        return [cell(row) for cell in self._cells.values()]

    def title(self, row: Row) -> str:
        """All cells in a line: `l4 tinyllama_1_1b 4 bpw Q4 lazy 2,048`."""
        shown = {name: cell(row) for name, cell in self._cells.items()}
        shown["max_seq_len"] = "boundary" if shown["max_seq_len"] == "auto" else shown["max_seq_len"]
        return " ".join(_labelled(name, value) for name, value in shown.items() if value != "–")


def kind_word(row: Row) -> str:
    """`simulated` or `measured`."""
    return _KIND_WORDS.get(row["device_kind"], str(row["device_kind"]))


def card_text(row: Row) -> str:
    """`rtx_4090 (simulated)`."""
    return f"{row['device_name']} ({kind_word(row)})"


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return "–" if value is None else str(value)


def _labelled(name: str, value: str) -> str:
    """`rtx_4090`, `limited to 8.00 GiB`, `4 bpw`, `batch_size 1`: says by itself what it is."""
    labels = {
        "limit": "limited to {}",
        "bpw": "{} bpw",
        "head": "head_bits {}",
        "attention": "attention {}",
        "batch": "batch_size {}",
        "input": "max_input_len {}",
    }
    return labels.get(name, "{}").format(value)
