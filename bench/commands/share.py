"""`vram-bench share`: rows in one file to be sent to others, without the names of people, machines and folders."""

from __future__ import annotations

import argparse
import json
import sys

from bench.core.errors import BadInput, ExitCode
from bench.share.pack import Packed, pack

_MIB = 1 << 20
_ATTACHED_BYTES = 25 * _MIB  # what GitHub takes of a file in an issue


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench share [DIR…] [--out FILE.zip] [--json]`."""
    if arguments.out.suffix != ".zip":
        raise BadInput(f"--out {arguments.out}: `report` knows a pack by its name; call it FILE.zip")
    for folder in arguments.results:
        if not folder.exists():
            raise BadInput(f"{folder}: no such directory; run a sweep first, or name another")
    packed = pack(arguments.results, arguments.out)
    for problem in packed.problems:
        print(f"vram-bench: skipped {problem}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(_document(packed), indent=2))
    else:
        print("\n".join(_lines(packed)))
    return ExitCode.PROBLEMS if packed.problems else ExitCode.DONE


def _lines(packed: Packed) -> list[str]:
    rows = ", ".join(f"{count:,} {kind}" for kind, count in packed.rows.items())
    large = packed.size_bytes > _ATTACHED_BYTES
    return [
        f"{packed.path}: {rows}; {packed.size_bytes / 1024:,.0f} KiB"
        + (", more than an issue takes; share fewer runs, or put it elsewhere" if large else ""),
        f"replaced: {_counted(len(packed.hosts), 'host')} ({', '.join(packed.hosts)}), "
        f"{_counted(packed.cards, 'UUID')}, {_counted(packed.paths, 'path')}",
        f"names of models and runs stay as they are; look at it before you send it: vram-bench report {packed.path} "
        "--out shared-report",
    ]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _document(packed: Packed) -> dict[str, object]:
    return {
        "file": str(packed.path),
        "bytes": packed.size_bytes,
        "rows": {str(kind): count for kind, count in packed.rows.items()},
        "hosts": packed.hosts,
        "uuids": packed.cards,
        "paths": packed.paths,
        "skipped": packed.problems,
    }
