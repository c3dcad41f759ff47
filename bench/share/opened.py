"""What a report is asked to read: folders of results, parquet files, and packs of rows, unpacked meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import BadInput
from bench.core.scratch import scratch_folder
from bench.share.unpack import is_pack, unpack


@dataclass(frozen=True)
class Opened:
    """The `folders` (or files) to read, each for what was `given`."""

    folders: tuple[Path, ...]
    given: tuple[Path, ...]

    @staticmethod
    def of(*folders: Path) -> Opened:
        """Folders that are no packs."""
        return Opened(folders, folders)

    def as_given(self, problem: str) -> str:
        """What is said of a file, under the name that it has for whoever asked."""
        for folder, given in zip(self.folders, self.given, strict=True):
            problem = problem.replace(str(folder), str(given)) if folder != given else problem
        return problem

    def __str__(self) -> str:
        return " ".join(map(str, self.given))


@contextlib.contextmanager
def opened(results: Sequence[Path]) -> Iterator[Opened]:
    """All of `results`, ready to be read. Raises `BadInput` for what is not there, or no pack of rows."""
    for path in results:
        if not path.exists():
            raise BadInput(f"--results {path}: no such directory; run a sweep first, or name another")
    packs = [path for path in results if is_pack(path)]
    with contextlib.ExitStack() as stack:
        folders = dict(zip(results, results, strict=True))
        if packs:
            scratch = stack.enter_context(scratch_folder())
            for number, path in enumerate(packs):
                folders[path] = scratch / str(number)
                unpack(path, folders[path])
        yield Opened(tuple(folders.values()), tuple(folders))
