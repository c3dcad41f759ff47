"""The group tables of an EXL2 checkpoint: the one thing that the engine reads of it and computes with as it loads."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from bench.tensor_files import Entry

EXL2_BITS = (2, 3, 4, 5, 6, 8)
_PART = ".q_groups"


def broken_table(files: Mapping[Path, Mapping[str, Entry]]) -> str | None:
    """Which of the tables in these files is none, and why; None where all of them are.

    Raises `OSError` for a file that cannot be read.
    """
    rows = {name: entry.shape[0] for entries in files.values() for name, entry in entries.items() if entry.shape}
    for path, entries in files.items():
        tables = {name: entry for name, entry in entries.items() if name.endswith(_PART) and entry.dtype == "I16"}
        if not tables:
            continue
        with path.open("rb") as file:
            for name, entry in tables.items():
                file.seek(entry.start)
                numbers = struct.unpack(f"<{entry.size_bytes // 2}h", file.read(entry.size_bytes))
                packed_rows = rows.get(f"{name.removesuffix(_PART)}.q_weight")
                if reason := _fault(numbers, packed_rows):
                    return f"{name} is no group table: {reason}"
    return None


def _fault(numbers: tuple[int, ...], packed_rows: int | None) -> str | None:
    """What is wrong with the bits and the first packed row of each group; `packed_rows` are those of the matrix."""
    bits, first = numbers[0::2], numbers[1::2]
    if numbers and not any(numbers):
        return "all of its numbers are 0"
    if not bits or len(bits) != len(first):
        return f"it has {len(numbers)} numbers, where each group has two"
    unknown = next((number for number in bits if number not in EXL2_BITS), None)
    if unknown is not None:
        return f"a group has {unknown} bits, and EXL2 has {', '.join(map(str, EXL2_BITS[:-1]))} or {EXL2_BITS[-1]}"
    ends = [*first, *([] if packed_rows is None else [packed_rows])]
    if first[0] != 0 or any(begin >= end for begin, end in pairwise(ends)):
        return "its groups do not begin one after the other within the rows of the matrix"
    return None
