"""A table of published figures: a CSV file, a figure a line, the settings as their source tells them.

Text stays text ("not told", "FP16 (default cache)"); what can be made of it is said by `settings.py` and `figures.py`.
What no such table has is refused with its line and column.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bench.core.errors import BadInput
from bench.core.printable import printable
from bench.core.regular_files import open_regular

MOST_BYTES = 16 << 20
_SHAPE = ("layers", "hidden", "intermediate", "n_experts", "n_heads", "n_kv_heads", "head_dim", "vocab")
_TEXT = (
    *("id", "kind", "model", "base_arch", "quant_format", "bpw", "head_bits", "cache_type", "max_seq_len", "batch"),
    *("chunk_max_input_len", "attention", "frontend", "gpu", "n_gpu", "os", "engine_version", "date", "trust"),
)
COLUMNS = (*_TEXT, *_SHAPE, "phase", "figure", "value", "unit", "source_url")
_REQUIRED = ("id", "kind", "value", "unit", "source_url")
_NUMBERED = ("vram", "oom", "speed")  # kinds whose value has a number in it
_NUMBER = re.compile(r"\d")
_WHOLE = re.compile(r"[1-9]\d{0,8}")


class Kind(StrEnum):
    """What a line is about."""

    VRAM = "vram"  # memory held, of a board or of a part, or a file's size
    OOM = "oom"  # a figure of an out-of-memory message
    FIT = "fit"  # whether it fits
    SPEED = "speed"


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, as a line gives them."""

    layers: int
    hidden: int
    intermediate: int
    n_experts: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab: int


@dataclass(frozen=True)
class Entry:
    """A line of the table, its text as it stands there; `shape` is None where its columns are empty."""

    line: int
    kind: Kind
    text: dict[str, str]
    shape: Shape | None

    def __getitem__(self, column: str) -> str:
        return self.text[column]

    @property
    def id(self) -> str:
        """What the table calls the measurement; the figures of one have the same."""
        return self.text["id"]


def read_table(path: Path) -> list[Entry]:
    """The lines of the table `path`. Raises `BadInput`."""
    try:
        with open_regular(path) as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error}); give a CSV file") from None
    if len(raw) > MOST_BYTES:
        raise BadInput(f"{path}: more than {MOST_BYTES:,} bytes; a table of published figures has some thousand lines")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: byte {error.start:,} is no UTF-8; save it as UTF-8") from None
    entries = list(_entries(path, text))
    if not entries:
        raise BadInput(f"{path}: no line below the names of its columns")
    return entries


def _entries(path: Path, text: str) -> Iterator[Entry]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] | None = None
    before = 0
    while True:
        line, before = before + 1, before
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise BadInput(f"{path}, line {line}: {error}; write it as CSV, with quotes around commas") from None
        before = reader.line_num
        if names is None:
            names = _named(path, cells)
        elif cells:
            yield _entry(path, line, names, cells)
    if names is None:
        raise BadInput(f"{path}: empty; its first line names the columns {', '.join(COLUMNS)}")


def _named(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if missing := [name for name in COLUMNS if name not in names]:
        raise BadInput(f"{path}, line 1: no column {', '.join(missing)}; name all of {', '.join(COLUMNS)}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"{path}, line 1: the column {printable(twice)} is there twice; name each once")
    return names


def _entry(path: Path, line: int, names: list[str], cells: list[str]) -> Entry:
    def refuse(column: str, reason: str) -> BadInput:
        return BadInput(f"{path}, line {line}, column {column}: {reason}")

    if len(cells) != len(names):
        last = names[min(len(cells), len(names)) - 1]
        raise refuse(last, f"the line has {len(cells)} fields, and there are {len(names)} columns; quote commas")
    text = {name: printable(" ".join(cell.split())) for name, cell in zip(names, cells, strict=True)}
    for column in _REQUIRED:
        if not text[column]:
            raise refuse(column, "empty; every line has one")
    if text["kind"] not in list(Kind):
        raise refuse("kind", f"{text['kind']}; allowed are {', '.join(Kind)}")
    if text["kind"] in _NUMBERED and not _NUMBER.search(text["value"]):
        raise refuse("value", f"{text['value']}: no number in it")
    if text["value"].startswith("-"):
        raise refuse("value", f"{text['value']}: less than nothing; give what was published")
    if not text["source_url"].startswith(("https://", "http://")):
        raise refuse("source_url", f"{text['source_url']}: give an address that begins with https://")
    for column in _SHAPE:
        if text[column] and not _WHOLE.fullmatch(text[column]):
            raise refuse(column, f"{text[column]}; write a whole number from 1 on, or nothing")
    sizes = [int(text[column]) for column in _SHAPE if text[column]]
    return Entry(line, Kind(text["kind"]), text, Shape(*sizes) if len(sizes) == len(_SHAPE) else None)
