"""Answers of the forecaster, kept on disk: ten thousand searches are looked up the next time, not replayed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path


class ForecastStore:
    """Texts by key in one file. What cannot be read or written is as if it were not there: it can be made again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, keys: Iterable[str]) -> dict[str, str]:
        """The texts that are there."""
        if not self._path.exists():
            return {}
        wanted = set(keys)
        try:
            with closing(sqlite3.connect(self._path)) as database:
                return {key: text for key, text in database.execute("SELECT key, text FROM forecasts") if key in wanted}
        except sqlite3.Error:
            return {}

    def write(self, texts: Mapping[str, str]) -> None:
        """Keeps `texts`, all or none."""
        if not texts:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=10)) as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS forecasts (key TEXT PRIMARY KEY, text TEXT NOT NULL)")
                database.executemany("INSERT OR REPLACE INTO forecasts VALUES (?, ?)", texts.items())
        except (sqlite3.Error, OSError):
            self._path.unlink(missing_ok=True)
