"""What the parent takes for the engine's default is what the engine reads, and a length beyond it is predicted too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given

from bench.allocator.limits import limits_of
from bench.config.lengths import lengths_of
from bench.engines.exllamav2.spec import SPEC
from bench.forecast.predict import predict
from bench.trace.replay import Replayer
from bench.worker import cards
from bench.worker.engines.exllamav2.checkpoint import lay_out
from bench.worker.engines.exllamav2.readable import read_config
from bench.worker.interfaces.engine import Unsupported
from tests.config.any_config import LENGTH_KEYS, configs
from tests.worker.architectures import DENSE
from tests.worker.conftest import made_up_case
from tests.worker.predicted_and_simulated import tensor_bytes_of, trace_of

cards.preload("simulated", "exllamav2")


@given(configs)
@example({"max_position_embeddings": True})
@example({"max_position_embeddings": float("inf")})
@example({"text_config": {"n_positions": 77}, "max_seq_len": None})
@example({"max_position_embeddings": 8192, "text_config": {"model_max_length": 4096}})
def test_the_engines_own_reader_takes_the_same(config: dict[str, Any]) -> None:
    from exllamav2.config import read

    try:
        value: int | None = read(config, int, list(LENGTH_KEYS), SPEC.default_length, opt_subkey="text_config")
    except (TypeError, ValueError, OverflowError, AttributeError):
        value = None
    assert lengths_of(config).engine_default == value


@pytest.mark.parametrize("length", [10**30, 0, -5, 2**63])
def test_a_limit_that_is_none_changes_no_recording(tmp_path: Path, length: int) -> None:
    """As tokenizers have it, for `no limit`: what is recorded for a given max_seq_len is that of any other model."""
    config = {"architectures": ["LlamaForCausalLM"], **DENSE}
    told = made_up_case(config, max_seq_len=4096)
    absurd = made_up_case({**config, "max_position_embeddings": length}, max_seq_len=4096)
    peaks = []
    for case in (told, absurd):
        replayer = Replayer(trace_of(case, tmp_path), tensor_bytes_of(case, tmp_path))
        peaks.append(predict(replayer, limits_of(case.device, None), case.max_seq_len))
    assert peaks[0] == peaks[1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pad_token_id": 32000}, "pad_token_id is 32000; vocab_size is 32000, so write less"),
        ({"head_dim": 1}, "head_dim is 1, and num_attention_heads 8; it needs a multiple of 32"),
        ({"num_key_value_heads": 16}, "num_key_value_heads is 16, and num_attention_heads 8"),
        ({"architectures": ["MixtralForCausalLM"]}, "the number of experts is None"),
        ({"max_position_embeddings": float("nan")}, "max_position_embeddings is NaN; write a whole number there"),
        ({"max_position_embeddings": float("inf")}, "max_position_embeddings is Infinity; write a whole number there"),
    ],
)
def test_what_the_engine_would_fail_over_later_is_told_by_the_key(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(Unsupported, match=re.escape(told)):
        read_config({"architectures": ["LlamaForCausalLM"], **DENSE, **changes})


def test_layers_that_exl2_cannot_pack_are_told(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], **DENSE, "intermediate_size": 2820}
    with pytest.raises(Unsupported, match=r"down_proj has 2820 inputs, and EXL2 packs rows by 32; with bpw=16"):
        lay_out(config, 4.0, 6)
    assert lay_out(config, 16.0, None).tensors
