"""What the forecaster keeps on disk: read as it was written, or not at all."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.forecast.cache import ForecastStore

TEXTS = {f"key {number}": f'{{"prediction": {number * 1234567}}}' for number in range(20)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ForecastStore(tmp_path / "cache" / "forecasts.sqlite").write(TEXTS)
    return tmp_path / "cache" / "forecasts.sqlite"


def test_what_is_kept_is_read(path: Path) -> None:
    assert ForecastStore(path).read([*TEXTS, "another"]) == TEXTS


@pytest.mark.parametrize(
    "value", ["'{\"prediction\": 1}'", "''", "7", "x'ff00'", "text || '0'", "replace(text, '7', '8')"]
)
def test_one_bad_row_costs_no_other_and_is_written_again(path: Path, value: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE forecasts SET text = {value} WHERE key = 'key 3'")
    store = ForecastStore(path)
    assert store.read(TEXTS) == {key: text for key, text in TEXTS.items() if key != "key 3"}
    store.write({"key 3": TEXTS["key 3"]})
    assert store.read(TEXTS) == TEXTS


def test_bytes_that_change_never_give_another_answer(path: Path) -> None:
    data, chance, lost = path.read_bytes(), random.Random(1), 0
    for _ in range(200):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        found = ForecastStore(path).read(TEXTS)
        assert found.items() <= TEXTS.items()
        lost += len(found) < len(TEXTS)
    assert lost > 20


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"garbage" * 1000),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(b""),
        lambda path: _other_table(path),
    ],
)
def test_a_file_that_is_none_is_made_again(path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(path)
    store = ForecastStore(path)
    assert store.read(TEXTS) == {}
    store.write(TEXTS)  # which deletes it, where it is none
    store.write(TEXTS)
    assert store.read(TEXTS) == TEXTS


def _other_table(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE forecasts (name TEXT)")


def test_a_file_that_another_process_writes_to_is_not_deleted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *where, **how: connect(*where, **{**how, "timeout": 0.1}))
    other = connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    ForecastStore(path).write({"new": "{}"})
    other.close()
    assert ForecastStore(path).read(TEXTS) == TEXTS


def test_a_place_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = ForecastStore(tmp_path / "file" / "forecasts.sqlite")
    store.write(TEXTS)
    assert store.read(TEXTS) == {}
