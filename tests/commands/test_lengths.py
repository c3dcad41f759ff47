"""Lengths from the command line: beyond what config.json says, up to an end of one's own, and what is no length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Program

QWEN_32B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "num_hidden_layers": 64,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
}
GEMMA_12B: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "mm_tokens_per_image": 256,
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_attention_heads": 16,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
        "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "image_size": 896,
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}
TINY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
}
# Google's head_dim; without it the one of the class is taken.
GEMMA_12B["text_config"]["head_dim"] = 256


def model(tmp_path: Path, config: dict[str, Any]) -> tuple[str, str, str]:
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return "model=local", f"model.path={folder}", "device=rtx_3090"


def planned(program: Program, *overrides: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    done = program("plan", *overrides, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    return document["cells"], document["cases"]


def test_a_length_that_yarn_reaches_is_answered(in_process: Program, tmp_path: Path) -> None:
    """The same answers as with 131,072 in config.json."""
    asked = (*model(tmp_path, QWEN_32B), "bpw=4.25", "cache=Q4", "max_seq_len=81920,77824,auto")
    (search,), cases = planned(in_process, *asked)
    assert [(case["max_seq_len"], case["fits"], case["failed_in"]) for case in cases] == [
        (81920, False, "cache"),
        (77824, True, None),
    ]
    assert "takes by default" in cases[0]["notes"][0]
    assert (search["native_max_seq_len"], search["native_max_seq_len_basis"]) == (131072, "rope scaling")
    assert 77824 <= search["predicted_fits_at"] < 81920


def test_gemma_3_goes_to_the_limit_of_its_family(in_process: Program, tmp_path: Path) -> None:
    asked = (*model(tmp_path, GEMMA_12B), "bpw=4.0", "max_seq_len=auto,8192")
    (search,), (case,) = planned(in_process, *asked, "cache=Q4")
    assert (search["native_max_seq_len"], search["native_max_seq_len_basis"]) == (131072, "family")
    assert search["searched_up_to"] == 131072
    assert (case["fits"], case["max_seq_len"]) == (True, 8192)
    with_the_key = {**GEMMA_12B, "text_config": {**GEMMA_12B["text_config"], "max_position_embeddings": 131072}}
    (same,), _ = planned(in_process, *model(tmp_path, with_the_key), "bpw=4.0", "max_seq_len=auto", "cache=Q4")
    assert (same["predicted_fits_at"], same["fits"]) == (search["predicted_fits_at"], search["fits"])


def test_what_config_json_leaves_open_is_a_lower_bound_and_said_to_be_one(in_process: Program, tmp_path: Path) -> None:
    asked = model(tmp_path, TINY)
    shown = in_process("plan", *asked).stdout
    assert "≥ 2,048" in shown
    assert " max" not in shown
    assert "own limit" not in shown
    assert "config.json names no limit; ExLlamaV2 takes 2,048 by default" in shown.replace("\n", " ")
    done = in_process("sweep", *asked, "auto_up_to=4096", "jobs=1")
    assert done.returncode == 0, done.stderr
    assert "fits up to 4,096 at least, where the search ended" in done.stderr
    assert "≥ 4,096" in done.stdout
    again = in_process("sweep", *asked, "auto_up_to=4096", "jobs=1")
    assert "1 of them stored already" in again.stderr
    further = in_process("sweep", *asked, "auto_up_to=8192", "jobs=1")
    assert "stored already" not in further.stderr
    assert "fits up to 8,192 at least" in further.stderr


def test_a_length_beyond_the_models_own_limit_is_answered_with_a_note(in_process: Program, tmp_path: Path) -> None:
    beyond = "beyond the model's own limit of 2,048: memory is right, outputs may not be"
    done = in_process("sweep", "model=tinyllama_1_1b", "device=rtx_3060_12gb", "max_seq_len=4096", "jobs=1")
    assert done.returncode == 0, done.stderr
    assert beyond in done.stdout.replace("\n", " ")
    assert beyond in (tmp_path / "results").glob("*/report/tables.md").__next__().read_text()


HUGE = {**TINY, "max_position_embeddings": 4096, "model_max_length": 10**30}


@pytest.mark.parametrize(
    ("config", "overrides", "said"),
    [
        (HUGE, (), "model_max_length in the config.json of model is about 10^30"),
        ({**TINY, "max_position_embeddings": 0}, (), "max_position_embeddings in the config.json of model is 0"),
        (HUGE, ("max_seq_len=100000000",), "from 64 to 16,777,216"),
        (TINY, ("auto_up_to=1e9",), "from 64 to 16,777,216"),
        (TINY, ("auto_up_to=4096,8192",), "one sweep is run in one way"),
        (TINY, ("auto_up_to=4096", "max_seq_len=512"), "there is none without max_seq_len=auto"),
        (
            {**TINY, "architectures": ["GPT2LMHeadModel"], "n_positions": 1024},
            ("max_seq_len=2048",),
            "has learned 1,024 positions",
        ),
    ],
)
def test_what_is_no_length_is_refused_by_its_key(
    in_process: Program, tmp_path: Path, config: dict[str, Any], overrides: tuple[str, ...], said: str
) -> None:
    done = in_process("plan", *model(tmp_path, config), *overrides)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_length_that_is_given_is_answered_and_kept_whatever_config_json_says(
    in_process: Program, tmp_path: Path
) -> None:
    done = in_process("sweep", *model(tmp_path, HUGE), "max_seq_len=4096", "jobs=1")
    assert done.returncode == 0, done.stderr
    assert "not of this program" not in done.stdout + done.stderr
    again = in_process("sweep", *model(tmp_path, HUGE), "max_seq_len=4096", "jobs=1")
    assert "1 of them stored already" in again.stderr
