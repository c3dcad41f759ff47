"""Model directories without the weights: true safetensors headers over bodies that are holes and take no disk.

Of an EXL2 body the loader reads one thing, the group tables; they are made from the shapes. Which of several possible
tables a layer really has makes no difference to memory.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.config.group_tables import EXL2_BITS
from bench.core.errors import BadInput
from bench.core.files import made_directory
from bench.tensor_files import BrokenHeader, Entry, read_header

_UNIT_ROWS = 32  # the kernels' step: a group has a multiple of it
_MAX_PACKED_ROWS = (1 << 15) - 1  # a table is int16


@dataclass(frozen=True)
class Beginning:
    """A file as far as it is known: its first bytes (all of a JSON file, a safetensors header) and its whole size."""

    data: bytes
    size_bytes: int


def is_complete(directory: Path) -> bool:
    """Whether `write` has made `directory`."""
    return (directory / "config.json").is_file()


def write(directory: Path, files: Mapping[str, Beginning], source: str) -> None:
    """Makes `directory` of `files`, by name; it appears complete or not at all.

    Raises `BadInput`, which calls the model `source`, for headers that are none and layers that cannot be EXL2.
    """
    with made_directory(directory, is_complete) as made:
        tensors: dict[str, tuple[Path, Entry]] = {}
        for name, beginning in files.items():
            with (made / name).open("wb") as file:
                file.write(beginning.data)
                file.truncate(beginning.size_bytes)
            if name.endswith(".safetensors"):
                tensors.update(_read_header(made / name, source))
        for name in tensors:
            if name.endswith(".q_weight"):
                _write_groups(name.removesuffix(".q_weight"), tensors, source)


def _read_header(path: Path, source: str) -> dict[str, tuple[Path, Entry]]:
    try:
        return {name: (path, entry) for name, entry in read_header(path).items()}
    except BrokenHeader as error:
        raise BadInput(f"{source}: {path.name} has a broken safetensors header ({error})") from None


def _write_groups(layer: str, tensors: Mapping[str, tuple[Path, Entry]], source: str) -> None:
    weight, order, table = (tensors.get(f"{layer}.{part}") for part in ("q_weight", "q_invperm", "q_groups"))
    if weight is None or order is None or table is None or table[1].dtype != "I16":
        raise BadInput(f"{source}: {layer} is no EXL2 layer: it needs q_weight, q_invperm, and q_groups of int16")
    rows, packed_rows, numbers = (entry.shape[0] if entry.shape else 0 for _, entry in (order, weight, table))
    data = group_table(rows, packed_rows, numbers // 2)
    if data is None or len(data) != 2 * numbers:
        raise BadInput(
            f"{source}: {layer} is no EXL2 layer: no mix of 2 to 8 bits packs {rows} rows, "
            f"in {numbers / 2:g} groups of {_UNIT_ROWS} or a multiple, into {packed_rows}"
        )
    path, entry = table
    with path.open("r+b") as file:
        file.seek(entry.start)
        file.write(data)


@cache
def group_table(rows: int, packed_rows: int, groups: int) -> bytes | None:
    """`q_groups` of a layer: bits and first packed row of each of `groups` groups, in falling order of bits.

    The groups are as even as they can be, as the quantiser makes them. None where no table gives these numbers.
    """
    units, rest = divmod(rows, _UNIT_ROWS)
    if rest or groups > units or packed_rows > _MAX_PACKED_ROWS:
        return None
    mix = next((mix for mix in _mixes(units, packed_rows) if len(mix) <= groups), None)
    if mix is None:
        return None
    shares = dict.fromkeys(mix, 1)  # the groups of each number of bits
    for _ in range(groups - len(mix)):
        shares[max(mix, key=lambda bits: mix[bits] / shares[bits])] += 1
    numbers: list[int] = []
    first = 0
    for bits in sorted(mix, reverse=True):
        size, larger = divmod(mix[bits], shares[bits])
        for number in range(shares[bits]):
            numbers += [bits, first]
            first += (size + (number < larger)) * bits
    return struct.pack(f"<{len(numbers)}h", *numbers)


def _mixes(units: int, packed_rows: int) -> Iterator[dict[int, int]]:
    """How many of `units` can have how many bits, if they pack into `packed_rows`; neighbouring bits come first.

    A unit of 32 rows with n bits is n packed rows.
    """
    for lower, upper in sorted(itertools.combinations(EXL2_BITS, 2), key=lambda pair: pair[1] - pair[0]):
        richer, rest = divmod(packed_rows - lower * units, upper - lower)
        if not rest and 0 <= richer <= units:
            yield {bits: count for bits, count in ((upper, richer), (lower, units - richer)) if count}
    richer, even = divmod(packed_rows - 6 * units + 1, 2)  # there are no 7 bits: one of 5 makes an odd sum of 6s and 8s
    if not even and 0 < richer < units - 1:
        yield {8: richer, 6: units - richer - 1, 5: 1}
