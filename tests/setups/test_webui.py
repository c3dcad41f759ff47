"""text-generation-webui's flags: what each becomes, and that none is dropped."""

from __future__ import annotations

import pytest

from bench.config.cases import plan_sweep
from bench.core.case import Case
from bench.core.errors import BadInput
from bench.setups.setup import Setup
from bench.setups.webui import read_webui

MODEL = ["model=tinyllama_1_1b", "bpw=4.0", "device=rtx_3090"]


def read(text: str, *typed: str) -> tuple[Setup, Case]:
    setup = read_webui(text, [*MODEL, *typed])
    (case,) = plan_sweep(setup.overrides).cases
    return setup, case


def test_flags_of_before_march_2026_are_a_case_of_the_engine_that_they_had() -> None:
    setup, case = read(
        "python server.py --model X --loader ExLlamav2_HF --max_seq_len 1000 --cache-type q6 --no_flash_attn"
    )
    assert (case.engine, case.scenario, case.lazy, case.max_seq_len) == ("exllamav2", "forward", False, 1000)
    assert (case.cache, case.attention) == ("Q6", "xformers")
    assert read("--loader exllamav2 --autosplit")[1].lazy
    assert read("--loader exllamav2 --cache_4bit")[1].cache == "Q4"
    assert "--model X" in setup.left


def test_todays_flags_are_a_case_of_todays_engine() -> None:
    _, case = read("--loader ExLlamav3_HF --ctx-size 10000 --cache-type q4_q8")
    assert (case.engine, case.lazy, case.max_seq_len, case.cache) == ("exllamav3", True, 10240, "k4v8")
    assert read("--loader exllamav3")[1].max_seq_len == 8192


def test_no_flag_is_dropped() -> None:
    text = (
        "--loader exllamav2 --api --listen-port 7860 --cfg-cache --lora a b --new-flag 3 --draft-max 5 --gpu-split 20,7"
    )
    setup, _ = read(text)
    assert setup.unknown == ["--new-flag"]
    assert setup.no_memory == ["--api", "--listen-port"]
    for flag in ("--cfg-cache", "--lora", "--draft-max 5", "gpu_split"):
        assert flag in setup.left


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--loader llama.cpp", "--loader llama.cpp is none of an engine here; allowed are exllamav2, exllamav2_hf"),
        ("--ctx-size many", "many: allowed are whole numbers"),
        ("--gpu-split 20,-7", "allowed are GB for each card"),
        ("--cache-type q9 --loader exllamav2", "--cache-type q9: allowed with ExLlamaV2 are fp16, q8, q6, q4"),
        ("--model 'unclosed", "No closing quotation"),
        ("", "no flags"),
        ("config.yml", "no flags"),
    ],
)
def test_what_are_no_such_flags_is_refused_in_a_line(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        read_webui(text, MODEL)


def test_a_model_that_is_not_here_is_to_be_named() -> None:
    with pytest.raises(BadInput, match="there is no model here; name the model beside it"):
        read_webui("--model none_such", ["device=rtx_3090"])
    with pytest.raises(BadInput, match="--model is not there"):
        read_webui("--loader exllamav2", ["device=rtx_3090"])
