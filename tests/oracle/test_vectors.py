"""What PyTorch's own allocator and ExLlamaV2's own engine answered on the null GPU, from us: equal to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.worker import cards
from tests.oracle import compare
from tests.oracle.operations import ANSWERS, answers_of_model
from tests.worker.predicted_and_simulated import little_garbage

VECTORS = Path(__file__).parent / "vectors"
ENGINE = VECTORS / "engine.json.gz"
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


@pytest.mark.parametrize("first", range(0, len(compare.read(ENGINE)), _AT_A_TIME))
def test_a_simulated_card_takes_what_the_engine_itself_takes(first: int, tmp_path: Path) -> None:
    found = {
        compare.named(recorded.case): lines
        for recorded in compare.read(ENGINE)[first : first + _AT_A_TIME]
        if (lines := compare.differences(recorded, tmp_path))
    }
    assert not found


def test_the_vectors_show_every_way_a_case_can_end() -> None:
    ends = [recorded.outcome.get("failed_in", "neither") for recorded in compare.read(ENGINE)]
    assert len(ends) >= 400
    assert {None, "load", "cache", "prefill"} <= set(ends)
