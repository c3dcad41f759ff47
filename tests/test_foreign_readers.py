"""Whatever anybody may have written is read or refused; scripts/benchmarks/fuzz_readers.py does it at length."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.foreign_readers import Reader, changed, readers

_NAMES = (
    *("config.json", "safetensors header", "hub's answer", "journal", "journal, by value", "parquet", "forecasts"),
    *("child's message", "quality"),
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return {reader.name: reader for reader in readers(tmp_path_factory.mktemp("seeds"))}


@pytest.mark.parametrize("name", _NAMES)
def test_a_right_input_is_read(known: dict[str, Reader], tmp_path: Path, name: str) -> None:
    assert list(known) == list(_NAMES)
    known[name].read(tmp_path, known[name].seed)


@pytest.mark.parametrize("name", _NAMES)
@given(seed=st.integers(0, 1 << 64))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_an_input_is_read_or_refused(known: dict[str, Reader], tmp_path: Path, name: str, seed: int) -> None:
    reader = known[name]
    with suppress(*reader.refusals):
        reader.read(tmp_path, changed(reader, random.Random(seed)))
