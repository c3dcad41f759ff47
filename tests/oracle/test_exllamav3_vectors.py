"""What exllamav3's own Generator took on the null GPU, from PyTorch's own allocator; from us: equal to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.worker import cards
from tests.oracle import compare
from tests.oracle.recorded import read
from tests.worker.predicted_and_simulated import little_garbage

RECORDED = read(Path(__file__).parent / "vectors" / "exllamav3_served.json.gz")
_EVERY = 5


@pytest.fixture(scope="module", autouse=True)
def preloaded() -> Iterator[None]:
    cards.preload("simulated", "exllamav3")
    with little_garbage("exllamav3"):
        yield


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[pytest.mark.thorough] * bool(n % _EVERY)) for n in range(len(RECORDED))]
)
def test_simulated_cards_take_what_the_generator_takes(number: int, tmp_path: Path) -> None:
    assert not compare.differences(RECORDED[number], tmp_path)


def test_the_vectors_show_every_kind_of_job() -> None:
    cases = [recorded.case for recorded in RECORDED]
    assert {case.scenario for case in cases} == {"generator"}
    assert len({case.model.name for case in cases}) >= 10
    assert {1, 2, 4, 20} <= {case.batch_size for case in cases}
    assert {None, "ngram"} == {case.draft for case in cases}
    assert {True, False} == {case.lazy for case in cases} == {case.cache_size is None for case in cases}
    assert {None, "load", "prefill"} <= {recorded.outcome.get("failed_in", "neither") for recorded in RECORDED}
