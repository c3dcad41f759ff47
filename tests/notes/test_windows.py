"""Sliding windows: what config.json describes against what the engine's layers have."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engines import windows as rules
from bench.engines.exllamav2.version import ENGINE

windows_note = partial(rules.windows_note, engine=ENGINE)

EVERY_SECOND = tuple(4096 if layer % 2 == 0 else 0 for layer in range(32))
EVERY_FOURTH = tuple(4096 if (layer + 1) % 4 else 0 for layer in range(32))
KINDS = ["sliding_attention" if window else "full_attention" for window in EVERY_FOURTH]
COHERE_2: dict[str, Any] = {"model_type": "cohere2", "sliding_window": 4096}


def test_cohere2_saved_again_has_fewer_windows_than_it_should() -> None:
    note = windows_note({**COHERE_2, "layer_types": KINDS}, EVERY_SECOND, 131_072)
    assert note is not None
    assert "gives 16 layers a sliding window where config.json has 24 layers" in note
    assert "outputs beyond 4,096 tokens are not; add sliding_window_pattern: 4" in note
    nested = {"model_type": "x", "text_config": {**COHERE_2, "layer_types": KINDS}}
    assert windows_note(nested, EVERY_SECOND, 131_072) == note


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        ({**COHERE_2, "layer_types": KINDS, "sliding_window_pattern": 4}, EVERY_FOURTH),
        ({**COHERE_2, "sliding_window_pattern": 4}, EVERY_FOURTH),
        ({"model_type": "gemma2", "sliding_window": 4096}, EVERY_SECOND),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, (0,) * 32),
        ({"model_type": "mistral", "sliding_window": None}, (0,) * 32),
        ({"model_type": "phi3", "sliding_window": 262_144}, (0,) * 32),
        ({"model_type": "unheard_of", "sliding_window": 4096}, (0,) * 32),
        ({"layer_types": KINDS[:5], "sliding_window": 4096}, (0,) * 32),
    ],
)
def test_what_is_the_same_or_not_told_is_no_note(config: dict[str, Any], windows: tuple[int, ...]) -> None:
    assert windows_note(config, windows, 131_072) is None


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"model_type": "mistral", "sliding_window": 4096}, "32 layers"),
        ({"model_type": "phi3", "sliding_window": 2047}, "32 layers"),
        (
            {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 28},
            "4 layers",
        ),
    ],
)
def test_windows_that_the_engine_does_not_know_are_told(config: dict[str, Any], wanted: str) -> None:
    note = windows_note(config, (0,) * 32, 32_768)
    assert f"gives no layer a sliding window where config.json has {wanted}" in str(note)


@given(st.lists(st.booleans(), min_size=1, max_size=64), st.integers(1, 8192), st.integers(64, 16_384))
def test_a_note_is_there_where_the_layers_differ_and_the_context_is_longer(
    told: list[bool], window: int, max_seq_len: int
) -> None:
    kinds = ["sliding_attention" if each else "full_attention" for each in told]
    config = {"layer_types": kinds, "sliding_window": window}
    assert windows_note(config, tuple(window if each else 0 for each in told), max_seq_len) is None
    other = tuple(0 if each else window for each in told)
    assert (windows_note(config, other, max_seq_len) is None) == (max_seq_len <= window)
