"""Reads a pack of rows that anybody may have made: three names at most, as many bytes as they say, and nothing else.

Nothing is extracted by the names in the archive: each table is copied, up to its limit, to a file that is named here.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from bench.core.errors import BadInput, first_line
from bench.core.regular_files import is_regular, open_regular
from bench.store.schema import Kind

TABLES = tuple(f"{kind}.parquet" for kind in Kind)
ABOUT = "README.md"
MOST_PACKED_BYTES = 256 << 20
MOST_BYTES = 512 << 20  # of each table; parquet is compressed already, so that a pack is about as large as its tables
_MOST_ABOUT_BYTES = 64 << 10
_AT_ONCE = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others are never needed, and each fails in its own way


def is_pack(path: Path) -> bool:
    """Whether a file is to be read as a pack: any that is called `.zip`."""
    return path.suffix.lower() == ".zip" and is_regular(path)


def unpack(path: Path, folder: Path) -> None:
    """Copies the tables of a pack to `folder`, which is made. Raises `BadInput` for what is no pack of rows."""
    try:
        with open_regular(path) as file:
            size_bytes = path.stat().st_size
            if size_bytes > MOST_PACKED_BYTES:
                raise _refused(path, f"{size_bytes:,} bytes; a pack has {MOST_PACKED_BYTES:,} at most")
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                _require_ours(path, members)
                folder.mkdir()
                for member in members:
                    if member.filename in TABLES:
                        _copy(path, archive, member, folder / member.filename)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _refused(path, f"it cannot be read ({first_line(error)})") from None


def _require_ours(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if len(set(names)) < len(names) or not set(names) <= {*TABLES, ABOUT} or not set(names) & set(TABLES):
        raise _refused(path, f"it has other files than {', '.join(TABLES)} and {ABOUT}, or none of them")
    for member in members:
        if member.compress_type not in _METHODS:
            raise _refused(path, f"{member.filename} is compressed in another way than stored or deflated")
        most_bytes = MOST_BYTES if member.filename in TABLES else _MOST_ABOUT_BYTES
        if member.file_size > most_bytes:
            raise _refused(path, f"{member.filename}: {member.file_size:,} bytes; {most_bytes:,} are read at most")


def _copy(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, to: Path) -> None:
    """What a member says of its own size is not trusted."""
    left = MOST_BYTES
    with archive.open(member) as source, to.open("xb") as file:
        while piece := source.read(_AT_ONCE):
            left -= len(piece)
            if left < 0:
                raise _refused(path, f"{member.filename}: more than {MOST_BYTES:,} bytes")
            file.write(piece)


def _refused(path: Path, reason: str) -> BadInput:
    return BadInput(f"{path}: no pack of rows, {reason}; `vram-bench share` makes them")
