"""What the engine takes by default, and the model's own limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config.lengths import MIN_SEQ_LEN, Lengths, is_plausible, lengths_of
from bench.core.case import MAX_SEQ_LEN
from bench.core.outcome import LimitBasis
from bench.engines.exllamav2.spec import SPEC
from tests.config.any_config import configs

_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
_LINEAR = {"rope_type": "linear", "factor": 8.0}
_GEMMA3 = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "rope_scaling": _LINEAR}}


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 4096, "max_sequence_length": 8192}, 8192),
        ({"model_max_length": 8192.0, "max_position_embeddings": 4096}, 8192),
        ({"max_position_embeddings": 4096, "text_config": {"max_position_embeddings": 8192}}, 4096),
        ({"max_position_embeddings": 8192, "text_config": {"model_max_length": 4096}}, 8192),
        ({"text_config": {"n_positions": 512, "max_position_embeddings": 32768}}, 32768),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": None}, 2048),
        ({"text_config": {}}, 2048),
        ({}, 2048),
        ({"max_position_embeddings": "4096"}, None),
        ({"max_position_embeddings": 0.5, "n_positions": 1024}, None),
        ({"text_config": [1]}, None),
        ({"model_max_length": 10**30, "max_position_embeddings": 4096}, 10**30),
    ],
)
def test_the_default_is_read_as_the_engine_reads_it(config: dict[str, Any], length: int | None) -> None:
    assert lengths_of(config).engine_default == length


@pytest.mark.parametrize(
    ("config", "limit", "basis"),
    [
        ({"max_position_embeddings": 32768}, 32768, LimitBasis.CONFIG),
        ({"max_position_embeddings": 131072, "rope_scaling": _LLAMA3}, 131072, LimitBasis.CONFIG),
        (
            {"max_position_embeddings": 131072, "rope_scaling": {"type": "su", "factor": 32.0}},
            131072,
            LimitBasis.CONFIG,
        ),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "longrope"}}, 131072, LimitBasis.CONFIG),
        # Qwen2.5 and Qwen3, whose cards tell to add YaRN for 131,072 tokens.
        ({"max_position_embeddings": 32768, "rope_scaling": _YARN}, 131072, LimitBasis.ROPE_SCALING),
        ({"max_position_embeddings": 40960, "rope_scaling": _YARN}, 131072, LimitBasis.ROPE_SCALING),
        ({"max_position_embeddings": 131072, "rope_scaling": _YARN}, 131072, LimitBasis.CONFIG),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 2.0}}, 65536, "rope scaling"),
        # as transformers 5 writes it, and with a part for each kind of layer
        ({"max_position_embeddings": 40960, "rope_parameters": {"rope_theta": 1e6, **_YARN}}, 131072, "rope scaling"),
        (
            {"max_position_embeddings": 4096, "rope_parameters": {"full_attention": _LINEAR, "sliding_attention": {}}},
            32768,
            LimitBasis.ROPE_SCALING,
        ),
        ({"text_config": {"max_position_embeddings": 32768, "rope_scaling": _YARN}}, 131072, "rope scaling"),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4}}, 8192, "rope scaling"),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, 65536, "rope scaling"),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "ntk", "factor": 2.5}}, 10240, "rope scaling"),
        # HunYuan's alpha is counted in.
        (
            {"max_position_embeddings": 32768, "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0}},
            32768,
            LimitBasis.CONFIG,
        ),
        # Vicuna 16k says the scaled length too.
        (
            {
                "max_position_embeddings": 4096,
                "max_sequence_length": 16384,
                "rope_scaling": {"type": "linear", "factor": 4},
            },
            16384,
            LimitBasis.CONFIG,
        ),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072, LimitBasis.CONFIG),  # Command R
        (_GEMMA3, 131072, LimitBasis.FAMILY),
        (
            {"model_type": "gemma3_text", "max_position_embeddings": 131072, "rope_scaling": _LINEAR},
            131072,
            "config.json",
        ),
        ({"model_type": "gemma2"}, 8192, LimitBasis.FAMILY),
        ({"model_type": "llava", "text_config": {"model_type": "mistral"}}, 131072, LimitBasis.FAMILY),
        ({"model_type": "mistral"}, 2048, LimitBasis.ENGINE_DEFAULT),  # its models differ
        ({}, 2048, LimitBasis.ENGINE_DEFAULT),
        # A tokenizer's `no limit` is none; what else is said counts.
        ({"model_max_length": 10**30, "max_position_embeddings": 4096}, 4096, LimitBasis.CONFIG),
        ({"model_max_length": 1e30}, None, None),
        ({"max_position_embeddings": 0}, None, None),
    ],
)
def test_the_models_own_limit(config: dict[str, Any], limit: int | None, basis: str | None) -> None:
    assert (lengths_of(config).limit, lengths_of(config).basis) == (limit, basis)


def test_what_a_reader_is_told_of_a_length() -> None:
    yarn = lengths_of({"max_position_embeddings": 32768, "rope_scaling": _YARN})
    assert yarn.notes(32768) == []
    assert yarn.notes(81920) == [
        "longer than the 32,768 that ExLlamaV2 takes by default: set max_seq_len; the model's own limit is 131,072 "
        "(yarn, 4 x 32,768)"
    ]
    assert yarn.notes(131328) == ["beyond the model's own limit of 131,072: memory is right, outputs may not be"]
    unnamed = lengths_of({})
    assert unnamed.notes(2048) == ["config.json names no limit; ExLlamaV2 takes 2,048 by default"]
    assert unnamed.notes(4096)[1:] == ["beyond ExLlamaV2's default: memory is right, outputs may not be"]
    assert "model_max_length of config.json is no length" in lengths_of({"model_max_length": 1e30}).notes(4096)[0]


@given(configs, st.integers(MIN_SEQ_LEN, MAX_SEQ_LEN))
def test_no_config_json_ends_in_a_length_that_is_none(config: dict[str, Any], max_seq_len: int) -> None:
    lengths = lengths_of(config)
    assert (lengths.limit is None) == (lengths.basis is None)
    assert lengths.limit is None or is_plausible(lengths.limit)
    assert all(isinstance(note, str) for note in lengths.notes(max_seq_len))
    if lengths.limit is not None and max_seq_len > lengths.limit:
        assert lengths.notes(max_seq_len), "a length beyond it goes without a word"
    if lengths.basis is LimitBasis.ENGINE_DEFAULT:
        assert lengths.limit == lengths.engine_default == SPEC.default_length


@given(st.integers(MIN_SEQ_LEN, 2**20), st.floats(1, 16), st.sampled_from(["linear", "dynamic", "yarn", "ntk"]))
def test_scaling_never_makes_a_model_shorter(length: int, factor: float, kind: str) -> None:
    lengths = lengths_of({"max_position_embeddings": length, "rope_scaling": {"type": kind, "factor": factor}})
    said = (lengths.limit, lengths.basis, lengths.derivation)
    assert lengths == Lengths(length, "max_position_embeddings", *said, engine=SPEC.title)
    assert lengths.limit == min(int(length * factor), MAX_SEQ_LEN) or int(length * factor) > MAX_SEQ_LEN
