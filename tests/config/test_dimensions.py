"""Numbers that no model has are told by their key; whatever a model has passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config.cases import plan_sweep
from bench.config.compose import combinations, names, validate
from bench.config.dimensions import absurdity
from bench.config.models import resolve_model
from bench.core.errors import BadInput
from tests.worker.architectures import ARCHITECTURES, DENSE

NAN, INFINITY = float("nan"), float("inf")
_WHOLE = {
    "vocab_size": 4_194_304,
    "num_hidden_layers": 1024,
    "n_layer": 1024,
    "hidden_size": 262_144,
    "num_attention_heads": 4096,
    "num_key_value_heads": 4096,
    "head_dim": 4096,
    "intermediate_size": 1_048_576,
    "moe_intermediate_size": 1_048_576,
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_of_all_architectures_pass(architecture: str) -> None:
    config = {"architectures": [architecture], **DENSE, **ARCHITECTURES[architecture]}
    assert absurdity(config) is None
    assert absurdity({"text_config": config, **dict.fromkeys(config)}) is None  # null is: not told


@pytest.mark.parametrize("key", _WHOLE)
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (-4096, "-4,096"),
        (10**30, "about 10^30"),
        (True, "true"),
        (NAN, "nan"),
        (INFINITY, "inf"),
        (0.5, "0.5"),
    ],
)
def test_a_number_that_no_model_has_is_told_by_its_key(key: str, value: Any, shown: str) -> None:
    told = f"{key} is {shown}; write a whole number from 1 to {_WHOLE[key]:,} there"
    assert absurdity({**DENSE, key: value}) == told
    assert absurdity({"text_config": {key: value}}) == f"text_config.{told}"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"rope_theta": 0}, "rope_theta is 0; write a positive number there"),
        ({"rope_theta": NAN}, "rope_theta is nan; write a positive number there"),
        ({"rope_scaling": {"factor": -4.0}}, "rope_scaling.factor is -4.0; write a positive number there"),
        ({"rope_scaling": {"original_max_position_embeddings": 0}}, "rope_scaling.original_max_position_embeddings is"),
        ({"partial_rotary_factor": 2}, "partial_rotary_factor is 2; write a number above 0, up to 1 there"),
        ({"attn_config": {"kv_n_heads": 0}}, "attn_config.kv_n_heads is 0; write a whole number from 1 to 4,096 there"),
        ({"sliding_window": 10**12}, "sliding_window is 1,000,000,000,000; write a whole number from -1"),
        ({"pad_token_id": False}, "pad_token_id is false"),
        ({"scale_emb": INFINITY}, "scale_emb is inf; write a number there"),
        ({"text_config": [1]}, "text_config is [1]; write an object there, or null"),
        ({"quantization_config": "exl2" * 40}, "quantization_config is \"exl2"),
        ({"hidden_size": 256.5}, "hidden_size is 256.5; write a whole number from 1 to 262,144 there"),
        ({"rope_parameters": {"rope_theta": -1}}, "rope_parameters.rope_theta is -1; write a positive number there"),
        ({"num_attention_heads": 4096, "head_dim": 4096}, "num_attention_heads is 4,096 and head_dim is 4,096; write"),
        ({"vocab_size": 1 << 22, "hidden_size": 1 << 18}, "vocab_size is 4,194,304 and hidden_size is 262,144; write"),
        (
            {"vocab_size": 1000, "hidden_size": 1 << 18, "num_hidden_layers": 1024, "intermediate_size": 1 << 20},
            "num_hidden_layers is 1,024, hidden_size is 262,144, intermediate_size is 1,048,576: some 10^15 weights",
        ),
        ({"num_hidden_layers": 1000, "num_experts": 4000}, "num_hidden_layers is 1,000 and num_experts is"),
    ],
)  # fmt: skip
def test_what_is_allowed_is_told(config: dict[str, Any], told: str) -> None:
    said = absurdity(config)
    assert said is not None
    assert said.startswith(told)
    assert len(said) < 200


_anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(list(DENSE)), inner)),
)


@given(
    st.dictionaries(st.sampled_from([*DENSE, "text_config", "rope_scaling", "ffn_config", "num_experts"]), _anything)
)
def test_nothing_ends_in_a_traceback(config: dict[str, Any]) -> None:
    said = absurdity(config)
    assert said is None or "\n" not in said


@pytest.fixture(scope="module")
def catalogue() -> dict[str, dict[str, Any]]:
    """What each model of the catalogue is composed to."""
    return {plain["model"]["name"]: plain for plain in combinations(["model=all"])}


@pytest.mark.parametrize("name", sorted({*names("model")} - {"local", "hub", "spark_formalizer_x1_7b"}))
def test_the_catalogue_passes(name: str, catalogue: dict[str, dict[str, Any]]) -> None:
    assert resolve_model(validate(catalogue[name]).model).name == name


def _directory(folder: Path, **changes: Any) -> str:
    config = {"architectures": ["LlamaForCausalLM"], **DENSE, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return f"model.path={folder}"


def test_a_directory_is_refused_before_anything_is_made_of_it(tmp_path: Path) -> None:
    model = _directory(tmp_path, num_hidden_layers=10**9)
    with pytest.raises(
        BadInput, match=r"config\.json: num_hidden_layers is 1,000,000,000; write a whole number from 1"
    ):
        plan_sweep(["model=local", model, "device=rtx_3090", "max_seq_len=4096"])


def test_an_own_model_of_the_catalogue_is_refused_too() -> None:
    with pytest.raises(BadInput, match=r"model=llama_3_1_8b: model\.config: hidden_size is 0; write"):
        plan_sweep(["model=llama_3_1_8b", "model.config.hidden_size=0", "device=rtx_3090", "max_seq_len=4096"])


def test_no_position_is_learned_for_a_length_that_is_none(tmp_path: Path) -> None:
    model = _directory(tmp_path, architectures=["GPT2LMHeadModel"], max_position_embeddings=None, n_positions=10**30)
    with pytest.raises(
        BadInput, match=r"n_positions in its config\.json is about 10\^30, and it has a learned position"
    ):
        plan_sweep(["model=local", model, "device=rtx_3090", "max_seq_len=1024"])
