"""What the value of a line says, in bytes: one size, one for each phase, or one for each part of a file."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bench.published.refused import NotComparable
from bench.published.table import Entry

_MIB, _GIB = 1 << 20, 1 << 30
# A card's gigabytes are GiB, as nvidia-smi's readers write them; docs/accuracy.md says so.
_UNITS = {
    "B": 1,
    "bytes": 1,
    "KiB": 1 << 10,
    "MiB": _MIB,
    "MB": _MIB,
    "GB": _GIB,
    "GiB": _GIB,
    "MB(decimal)": 10**6,
    "GB(decimal)": 10**9,
}
_SIZE = re.compile(
    r"(?P<number>\d[\d,]*(?:\.\d+)?)(?: ?(?:-|–|to) ?(?P<most>\d+(?:\.\d+)?))?"
    r"(?: ?\+-(?P<off>\d+(?:\.\d+)?))?(?: ?(?P<unit>GiB|MiB|KiB|GB|MB|B)\b)?"
)
_ODD_COMMA = re.compile(r"\d,(?!\d{3}(?!\d))\d")
_PART = re.compile(r"([a-z_]+) (\d{4,})")
_MOST_BYTES = 1 << 60


@dataclass(frozen=True)
class Size:
    """A published size and how exact it is: by its last digit, or as it is told."""

    size_bytes: float
    off_bytes: float
    of: str  # the phase, or the part of a file; empty where the value is one


def sizes_of(entry: Entry) -> list[Size]:
    """The sizes of a line. Raises `NotComparable`."""
    if entry["unit"] not in _UNITS:
        raise NotComparable(f"a value in {entry['unit']}: no size of a board, a message or a file")
    value = entry["value"].split(";")[0]
    if parts := _PART.findall(value):
        return [Size(float(number), 0.5, part) for part, number in parts]
    phases = [name.strip() for name in entry["phase"].split("/")]
    texts = re.sub(r"\(.*?\)", "", value).split("/")
    if len(texts) > 1:
        if len(texts) != len(phases):
            raise NotComparable(f"{len(texts)} values for {len(phases)} phases: which is of which is not told")
        return [_size(entry, text, phase) for text, phase in zip(texts, phases, strict=True)]
    return [_size(entry, texts[0], phases[0] if len(phases) == 1 else "")]


def _size(entry: Entry, text: str, of: str) -> Size:
    if text.strip()[:1] in ("<", ">", "≤", "≥"):
        raise NotComparable(f"{entry['value']}: a bound, and no figure")
    if _ODD_COMMA.search(text):
        raise NotComparable(f"{entry['value']}: whether its comma divides thousands or begins a fraction is not told")
    found = _SIZE.search(text)
    if not found:
        raise NotComparable(f"{entry['value']}: no size")
    unit_bytes = _UNITS[found["unit"] or entry["unit"]]
    number = found["number"].replace(",", "")
    decimals = len(number.partition(".")[2])
    off = float(found["off"]) if found["off"] else 0.5 * math.pow(10, -decimals)
    middle = float(number)
    if found["most"]:  # a range: its middle, and as far as it goes
        most = float(found["most"])
        middle, off = (middle + most) / 2, abs(most - middle) / 2 + off
    if not 0 < middle * unit_bytes < _MOST_BYTES:
        raise NotComparable(f"{entry['value']}: no size of anything on a card")
    return Size(middle * unit_bytes, off * unit_bytes, of)
