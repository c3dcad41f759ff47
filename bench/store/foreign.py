"""Parquet files that anybody may have written: bounds before they are read, checks after, and texts that can be shown.

A few kilobytes of parquet may stand for any number of rows and for any length of a text in each of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pac
import pyarrow.parquet as pq

from bench.core.printable import UNPRINTABLE, printable

_LEAST_ROW_BYTES = 4  # of a file: rows differ in their ids and moments, which no compression takes away
_FREE_ROWS = 10_000
MOST_TEXT_BYTES = 4 << 30  # of all rows of a file
# Bytes of UTF-8 with which something unprintable begins, beside the control characters.
_SUSPECT = (0x7F, 0xC2, 0xE2, 0xEF)


def require_plausible(path: Path, metadata: pq.FileMetaData) -> None:
    """Raises `ValueError` for a file that cannot have as many rows as it says, or has texts without end in it."""
    size_bytes = path.stat().st_size
    rows = metadata.num_rows
    if rows > _FREE_ROWS + size_bytes // _LEAST_ROW_BYTES:
        raise ValueError(f"{rows:,} rows in {size_bytes:,} bytes: they cannot all be different")
    # Of each group and not of its columns: pyarrow checks those only where it reads them.
    unpacked = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if not 0 <= unpacked <= MOST_TEXT_BYTES:
        raise ValueError(f"{unpacked:,} bytes for {rows:,} rows")


def read_checked(path: Path, metadata: pq.FileMetaData, columns: list[str], schema: pa.Schema) -> pa.Table:
    """The columns of a file, texts as dictionaries: so a text that is in many rows is there once.

    Checksums of pages, which newer programs write, are verified. Raises `ValueError` where the texts would be too
    long altogether, and what pyarrow raises.
    """
    texts = [name for name in columns if pa.types.is_string(schema.field(name).type)]
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts, page_checksum_verification=True) as file:
        table = file.read(columns, use_threads=metadata.num_rows > _FREE_ROWS)
    if sum(_most_text_bytes(table.column(name)) for name in texts) <= MOST_TEXT_BYTES:
        return table
    length = sum(_text_bytes(table.column(name)) for name in texts)
    if length > MOST_TEXT_BYTES:
        raise ValueError(f"{length:,} bytes of text in {table.num_rows:,} rows")
    return table


def _most_text_bytes(column: pa.ChunkedArray) -> int:
    """As if all of a column's different texts were in each row, which takes no look at any of them."""
    return sum(
        chunk.dictionary.nbytes * len(chunk) if pa.types.is_dictionary(chunk.type) else chunk.nbytes
        for chunk in column.chunks
    )


def _text_bytes(column: pa.ChunkedArray) -> int:
    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            lengths = pac.binary_length(chunk.dictionary).to_numpy(zero_copy_only=False)
            counts = np.bincount(chunk.indices.drop_null().to_numpy(zero_copy_only=False), minlength=len(lengths))
            total += int(np.dot(np.nan_to_num(lengths).astype(np.int64), counts[: len(lengths)]))
        else:
            total += chunk.nbytes
    return total


def shown(table: pa.Table) -> pa.Table:
    """A table of which every text can be shown in a terminal and in a picture; what is on disk stays as it is."""
    for number, column in enumerate(table.schema):
        if pa.types.is_string(column.type) and _is_suspect(table.column(number)):
            values = table.column(number)
            odd = pac.fill_null(pac.match_substring_regex(values, UNPRINTABLE), False)
            if pac.any(odd).as_py():
                texts = [None if text is None else printable(text) for text in values.to_pylist()]
                table = table.set_column(number, column, pa.array(texts, column.type))
        elif column.type == pa.list_(pa.string()) and _is_suspect(pac.list_flatten(table.column(number))):
            lists = [own and [text and printable(text) for text in own] for own in table.column(number).to_pylist()]
            table = table.set_column(number, column, pa.array(lists, column.type))
    return table


def _is_suspect(column: pa.ChunkedArray) -> bool:
    """Whether a look at each value is worth its time: there are a million rows, and hardly ever anything to find."""
    for chunk in column.chunks:
        data = chunk.buffers()[2] if len(chunk) else None
        if data is not None:
            there = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
            if there[:32].any() or any(there[byte] for byte in _SUSPECT):
                return True
    return False
