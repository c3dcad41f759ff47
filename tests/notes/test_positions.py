"""Positions: what config.json describes against what the engine computes."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engines import positions as rules
from bench.engines.exllamav2.version import ENGINE
from bench.engines.reading import Rope

positions_note = partial(rules.positions_note, engine=ENGINE)

PLAIN = Rope(10_000.0, None, "default", {}, 1.0)
LLAMA_3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 32768}


# What transformers 5.24.0 writes, and what the engine then computes.
@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"rope_type": "default", "rope_theta": 500_000.0}, "base 10,000 for 500,000"),
        ({"rope_type": "llama3", "rope_theta": 500_000.0, **LLAMA_3}, "base 10,000 for 500,000, no llama3 scaling"),
        ({"rope_type": "yarn", "rope_theta": 1e6, **YARN}, "base 10,000 for 1,000,000, no yarn scaling"),
        ({"rope_type": "longrope", "rope_theta": 10_000.0, "long_factor": [1.0]}, "no longrope scaling"),
        ({"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}, "no linear scaling"),
        (
            {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
            "1 of each head rotated for 0.5",
        ),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_what_moved_into_rope_parameters_is_not_read(parameters: dict[str, Any], told: str, nested: bool) -> None:
    config: dict[str, Any] = {"rope_parameters": parameters}
    note = positions_note({"text_config": config} if nested else config, PLAIN, 65_536)
    assert note is not None
    assert f"({told})" in note
    assert "memory is right, outputs are not" in note
    assert "rope_parameters" in note


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rope_theta": 10_000},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}},
        {"rope_parameters": {"rope_type": "default"}},
        {"rope_parameters": None, "rope_scaling": None},
        {"rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "type": "mrope"}},
        {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 65_536},
    ],
)
def test_what_changes_nothing_is_no_note(config: dict[str, Any]) -> None:
    assert positions_note(config, PLAIN, 65_536) is None


def test_a_scaling_that_the_engine_does_not_know_is_told_where_it_would_matter() -> None:
    config = {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 4096}
    assert "no dynamic scaling" in str(positions_note(config, PLAIN, 8192))
    assert positions_note(config, PLAIN, 4096) is None


def test_yarn_matters_beyond_the_length_that_it_stretches() -> None:
    config = {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10_000.0, **YARN}}
    assert positions_note(config, PLAIN, 32_768) is None
    assert "no yarn scaling" in str(positions_note(config, PLAIN, 33_024))


def test_numbers_of_a_scaling_that_are_not_read_are_told() -> None:
    rope = Rope(1e6, None, "yarn", {key: float(value) for key, value in YARN.items()}, 1.0)
    scaling = {"rope_type": "yarn", **YARN}
    assert positions_note({"rope_theta": 1e6, "rope_scaling": scaling}, rope, 65_536) is None
    assert "beta_fast 32 for 64" in str(positions_note({"rope_scaling": {**scaling, "beta_fast": 64}}, rope, 65_536))
    assert "attention_factor" in str(positions_note({"rope_scaling": {**scaling, "attention_factor": 1}}, rope, 65_536))


def test_models_without_rotary_positions_have_none_to_get_wrong() -> None:
    assert positions_note({"rope_parameters": {"rope_theta": 5.0}}, None, 4096) is None


def test_each_kind_of_layer_may_have_its_own() -> None:
    """Gemma-3: what its windowed layers take is fixed in the engine; the linear scaling of the others is not read."""
    parameters: dict[str, Any] = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    }
    read = Rope(1e6, 10_000.0, "default", {}, 1.0)
    config = {"text_config": {"rope_parameters": parameters}}
    assert "(no linear scaling)" in str(positions_note(config, read, 8192))
    scaled = Rope(1e6, 10_000.0, "linear", {"factor": 8.0}, 1.0)
    assert (
        positions_note({"text_config": {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}}, scaled, 8192) is None
    )
    parameters["sliding_attention"]["rope_theta"] = 20_000.0
    assert "base of windowed layers 10,000 for 20,000" in str(positions_note(config, scaled, 8192))


@given(
    base=st.floats(1.0, 1e9),
    said=st.floats(1.0, 1e9) | st.none(),
    factor=st.floats(0.1, 1.0),
    length=st.integers(64, 1 << 20),
)
def test_a_note_is_there_exactly_where_the_numbers_differ(
    base: float, said: float | None, factor: float, length: int
) -> None:
    told = {"rope_type": "default", "rope_theta": said, "partial_rotary_factor": factor}
    note = positions_note({"rope_parameters": told}, Rope(base, None, "default", {}, factor), length)
    assert (note is None) == (said is None or abs(said - base) <= 1e-9 * max(said, base))
