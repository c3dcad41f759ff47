"""Answers of the forecaster, kept on disk: ten thousand searches are looked up the next time, not replayed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

# What passes, or is not the file's fault: another process is writing to it, it may not be written to, the disk is full.
_OF_THE_PLACE = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM),
}
_PRIMARY = 0xFF  # of an extended error code


class ForecastStore:
    """Texts by key in one file, each with its checksum.

    What cannot be read or written, or was changed, is as if it were not there: it can be made again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, keys: Iterable[str]) -> dict[str, str]:
        """The texts that are there."""
        if not os.path.exists(self._path):
            return {}
        wanted, found = set(keys), {}
        try:
            where = f"file:{quote(str(self._path))}?mode=ro"  # it may not be ours to write to
            with closing(sqlite3.connect(where, uri=True)) as database:
                for key, kept in database.execute("SELECT key, text FROM forecasts"):
                    if key in wanted and isinstance(kept, str):
                        checksum, _, text = kept.partition(" ")
                        if checksum == _checksum(key, text):
                            found[key] = text
        except (sqlite3.Error, UnicodeError):
            return {}
        return found

    def write(self, texts: Mapping[str, str]) -> None:
        """Keeps `texts`, all or none."""
        if not texts:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=10)) as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS forecasts (key TEXT PRIMARY KEY, text TEXT NOT NULL)")
                kept = [(key, f"{_checksum(key, text)} {text}") for key, text in texts.items()]
                database.executemany("INSERT OR REPLACE INTO forecasts VALUES (?, ?)", kept)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & _PRIMARY not in _OF_THE_PLACE:
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)
        except OSError:
            pass


def _checksum(key: str, text: str) -> str:
    return hashlib.sha256(f"{key} {text}".encode()).hexdigest()[:16]
