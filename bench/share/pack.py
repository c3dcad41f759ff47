"""Packs the rows of some sweeps into one file to be sent, without the names of people, machines and folders."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.core.column import Role, names_of
from bench.core.columns import CaseRow
from bench.core.errors import BadInput
from bench.core.files import replaced
from bench.share.hidden import Hidden, users_here, uuid
from bench.share.unpack import ABOUT, MOST_BYTES
from bench.store.schema import Kind
from bench.store.store import read_boundaries, read_cases, read_memory, write_rows
from bench.store.texts import Rows, hosts_of, texts_of, with_texts

# Hashes and versions: nothing of anybody is in them, and a number of a version may look like an address.
_OURS = {
    *("case_id", "boundary_id", "case_ids", "model_fingerprint", "draft_fingerprint"),
    *(name for name in names_of(CaseRow, Role.MACHINE) if name.endswith("_version")),
}
_README = """\
Rows of vram-bench: what fits on a GPU, one row a case or a boundary. Names of hosts, users and folders, and the UUIDs
of cards are replaced. `vram-bench report FILE.zip --out DIR` shows them.
"""


@dataclass(frozen=True)
class Packed:
    """What was packed: rows of each kind, what stands for each host, how many cards and paths were renamed."""

    path: Path
    size_bytes: int
    rows: dict[Kind, int]
    hosts: list[str]
    cards: int
    paths: int
    problems: list[str]


def pack(results: Sequence[Path], path: Path) -> Packed:
    """Writes the rows below `results` to `path`. Raises `BadInput` where there are none, or a name is left in them."""
    readers = {Kind.CASES: read_cases, Kind.BOUNDARIES: read_boundaries, Kind.MEMORY: read_memory}
    tables, problems = {}, list[str]()
    for kind, read in readers.items():
        table, found = read(*results)
        problems += [problem for problem in found if problem not in problems]
        if table.num_rows:
            tables[kind] = table
    if not tables:
        raise BadInput(f"{' '.join(map(str, results))}: no rows in it; run a sweep first, or name another")
    pairs = {pair for table in tables.values() for pair in hosts_of(table)}
    hosts = {host: {uuid for name, uuid in pairs if name == host and uuid is not None} for host, _ in pairs}
    hidden = Hidden(hosts, users_here(text for table in tables.values() for _, text in texts_of(table)))
    packed = {kind: _hidden(table, hidden) for kind, table in tables.items()}
    _write(packed, path)
    return Packed(
        path,
        path.stat().st_size,
        {kind: table.num_rows for kind, table in packed.items()},
        sorted(map(hidden.host, hosts)),
        len({number for uuids in hosts.values() for number in uuids}),
        len(hidden.paths),
        problems,
    )


def _hidden(table: Rows, hidden: Hidden) -> Rows:
    def told(column: str, text: str) -> str:
        if column == "host":
            return hidden.host(text)
        if column == "device_uuid":
            return uuid(text)
        return text if column in _OURS else hidden.text(text)

    table = with_texts(table, told)
    for column, text in texts_of(table):
        if (name := hidden.left_in(text)) is not None:
            raise BadInput(
                f"{column}: {name!r} is the name of a host or a user, and still in {text[:60]!r}; "
                "nothing was written. Rename what it names, and measure again"
            )
    return table


def _write(tables: dict[Kind, Rows], path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_dated(ABOUT), _README)
            for kind, table in tables.items():
                buffer = io.BytesIO()
                write_rows(table, buffer)
                if len(buffer.getbuffer()) > MOST_BYTES:
                    raise BadInput(f"{kind}: more than {MOST_BYTES:,} bytes, which no pack may have; share fewer runs")
                archive.writestr(_dated(f"{kind}.parquet"), buffer.getvalue())
    except OSError as error:
        raise BadInput(f"--out {path}: cannot be written ({error.strerror}); choose another") from None


def _dated(name: str) -> zipfile.ZipInfo:
    """A member that says nothing of when, or by whom, it was packed."""
    return zipfile.ZipInfo(name)
