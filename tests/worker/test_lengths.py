"""What the parent takes for the engine's default is what the engine reads, and a length beyond it is predicted too."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given

from bench.config.lengths import ENGINE_DEFAULT, lengths_of
from bench.worker.simulated import card
from tests.config.any_config import LENGTH_KEYS, configs

card.preload()


@given(configs)
@example({"max_position_embeddings": True})
@example({"max_position_embeddings": float("inf")})
@example({"text_config": {"n_positions": 77}, "max_seq_len": None})
@example({"max_position_embeddings": 8192, "text_config": {"model_max_length": 4096}})
def test_the_engines_own_reader_takes_the_same(config: dict[str, Any]) -> None:
    from exllamav2.config import read

    try:
        value: int | None = read(config, int, list(LENGTH_KEYS), ENGINE_DEFAULT, opt_subkey="text_config")
    except (TypeError, ValueError, OverflowError, AttributeError):
        value = None
    assert lengths_of(config).engine_default == value
