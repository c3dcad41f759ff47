"""What PyTorch's own allocator and ExLlamaV2's own engine answered on the null GPU, from us: equal to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.core.split import Split, SplitBy
from bench.worker import cards
from tests.oracle import compare, expandable_vectors
from tests.oracle.expandable_vectors import read as read_expandable
from tests.oracle.operations import ANSWERS, answers_of_model
from tests.oracle.recorded import read
from tests.worker.predicted_and_simulated import little_garbage

VECTORS = Path(__file__).parent / "vectors"
ENGINE = VECTORS / "engine.json.gz"
MACHINES = VECTORS / "machines.json.gz"
SERVED = VECTORS / "served.json.gz"
_AT_A_TIME = 40


@pytest.fixture(scope="module", autouse=True)
def preloaded() -> Iterator[None]:
    cards.preload("simulated", "exllamav2")
    with little_garbage():
        yield


@pytest.mark.parametrize("seed", range(12))
def test_the_model_of_the_allocator_answers_as_pytorch_s_own(seed: int) -> None:
    with np.load(VECTORS / "allocator.npz") as recorded:
        operations, theirs = recorded[f"operations_{seed}"], recorded[f"answers_{seed}"]
        ours = answers_of_model(operations, int(recorded[f"card_bytes_{seed}"]))
    different = np.flatnonzero((ours != theirs).any(axis=1))
    assert len(different) == 0, dict(
        zip(ANSWERS, zip(ours[different[0]], theirs[different[0]], strict=True), strict=True)
    )


@pytest.mark.parametrize(
    ("vectors", "first"),
    [
        pytest.param(
            vectors,
            first,
            marks=[pytest.mark.thorough] * bool(vectors is ENGINE and first // _AT_A_TIME % 6),
        )
        for vectors in (ENGINE, MACHINES, SERVED)
        for first in range(0, len(read(vectors)), _AT_A_TIME)
    ],
)
def test_simulated_cards_take_what_the_engine_itself_takes(vectors: Path, first: int, tmp_path: Path) -> None:
    found = {
        compare.named(recorded.case): lines
        for recorded in read(vectors)[first : first + _AT_A_TIME]
        if (lines := compare.differences(recorded, tmp_path))
    }
    assert not found


def test_the_vectors_show_every_way_a_case_can_end() -> None:
    ends = [recorded.outcome.get("failed_in", "neither") for recorded in read(ENGINE)]
    assert len(ends) >= 400
    assert {None, "load", "cache", "prefill"} <= set(ends)


def test_the_vectors_of_several_cards_show_every_way_to_use_them() -> None:
    ways = set(SplitBy) - {SplitBy.BEST}  # which is one of GiB by the time it runs
    of_split = {by: [each for each in read(MACHINES) if Split.parse(each.case.split or "").by is by] for by in ways}
    for recorded in of_split.values():
        assert {len(each.case.devices) for each in recorded} == {2, 3}
        assert {each.peer_access for each in recorded} == {False, True}
        assert {None, "load"} <= {each.outcome.get("failed_in", "neither") for each in recorded}


def test_the_vectors_of_the_generator_show_every_kind_of_job() -> None:
    cases = [recorded.case for recorded in read(SERVED)]
    assert {case.scenario for case in cases} == {"generator"}
    assert {1, 2, 8, 32} <= {case.batch_size for case in cases}
    assert {None, "ngram"} == {case.draft for case in cases}
    assert {True, False} == {case.cache_size is None for case in cases}
    assert {None, "prefill"} <= {recorded.outcome.get("failed_in", "neither") for recorded in read(SERVED)}


@pytest.mark.parametrize("sequence", read_expandable(VECTORS / "expandable.npz"), ids=lambda sequence: sequence.name)
def test_expandable_segments_grow_and_shrink_as_pytorch_s_own(sequence: expandable_vectors.Sequence) -> None:
    ours = expandable_vectors.answers_of_model(sequence)
    different = np.flatnonzero((ours != sequence.answers).any(axis=1))
    assert len(different) == 0, dict(
        zip(
            expandable_vectors.ANSWERS,
            zip(ours[different[0]], sequence.answers[different[0]], strict=True),
            strict=True,
        )
    )
