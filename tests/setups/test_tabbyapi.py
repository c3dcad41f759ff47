"""TabbyAPI's config.yml: what each of its keys becomes, and that none is dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.config.cases import plan_sweep
from bench.core.case import Case
from bench.core.errors import BadInput
from bench.engines.registry import NAMES, engine_of
from bench.setups.setup import Setup
from bench.setups.tabbyapi import read_tabby

V2, V3 = "backend: exllamav2", "backend: exllamav3"
Tabby = Callable[..., Setup]


def case_of(setup: Setup) -> Case:
    (case,) = plan_sweep(setup.overrides).cases
    return case


def test_a_config_of_before_july_2026_is_a_case_loaded_as_tabbyapi_does(tabby: Tabby) -> None:
    setup = tabby(
        V2, "max_seq_len: 8192", "cache_size: 16384", "cache_mode: Q6", "chunk_size: 1000", "max_batch_size: 2"
    )
    case = case_of(setup)
    assert (case.engine, case.scenario, case.load_as) == ("exllamav2", "generator", "tabbyapi")
    assert (case.max_seq_len, case.cache_size, case.cache, case.max_batch_size) == (8192, 16384, "Q6", 2)
    assert case.max_input_len == 1024  # whole pages, as it rounds them
    assert case.model.name == "tiny"


def test_todays_config_is_a_case_of_its_engine(tabby: Tabby) -> None:
    case = case_of(tabby(V3, "max_seq_len: 8000", "cache_size: 16384", "cache_mode: 8, 5"))
    assert (case.engine, case.scenario, case.lazy) == ("exllamav3", "generator", False)
    assert (case.max_seq_len, case.cache_size, case.cache) == (8192, 16384, "k8v5")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([V2], (4096, 4096)),  # its default, with that engine
        ([V3], (32768, 32768)),  # the model's own
        ([V2, "max_seq_len: -1"], (32768, 32768)),
        ([V2, "max_seq_len: 1000"], (1000, 1024)),
        ([V2, "cache_size: 8192"], (8192, 8192)),
        ([V3, "cache_size: 8192"], (8192, 8192)),  # no context is longer than the cache
        ([V2, "max_seq_len: 8192", "cache_size: 4096"], (4096, 4096)),
    ],
)
def test_lengths_that_are_left_out_are_those_that_tabbyapi_takes(
    tabby: Tabby, lines: list[str], expected: tuple[int, int]
) -> None:
    case = case_of(tabby(*lines))
    assert (case.max_seq_len, case.cache_tokens) == (expected[0], case.cache_size or expected[0])
    assert case.cache_tokens == expected[1]


@pytest.mark.parametrize("name", NAMES)
def test_every_word_for_a_cache_is_a_cache_of_the_engine(name: str) -> None:
    for frontend in engine_of(name).frontends.values():
        assert set(frontend.caches.values()) <= set(engine_of(name).caches)
        assert all(frontend.cache_of(frontend.word_for(cache)) == cache for cache in frontend.caches.values())


def test_a_cache_of_another_engine_is_what_tabbyapi_takes_in_its_place_and_said(tabby: Tabby) -> None:
    setup = tabby(V2, "cache_mode: 8,5")
    assert case_of(setup).cache == "FP16"
    assert "FP16 is taken" in setup.left["model.cache_mode: 8,5"]


def test_without_a_backend_it_goes_by_what_only_one_has_then_by_the_weights(tabby: Tabby) -> None:
    assert tabby("cache_mode: 6,5").engine.name == "exllamav3"
    assert tabby("cache_mode: Q4").engine.name == "exllamav2"
    assert tabby("cache_mode: Q4", typed=("engine=exllamav3", "device=rtx_3090")).engine.name == "exllamav3"


def test_no_key_is_dropped(tabby: Tabby) -> None:
    more = (
        "network:\n  port: 5000\n  newest: 1\nlora:\n  loras: [{name: a}]\nservices: {}\n"
        "memory:\n  cuda_malloc_async: true\n"
    )
    lines = [
        "cpu_moe_offload_layers: 4",
        "rope_alpha: 2.5",
        "surprise: yes",
        "gpu_split: [20, 24]",
        "tensor_parallel: true",
    ]
    setup = tabby(V3, *lines, "autosplit_reserve: [96]", "vision:", more=more)
    told = [*setup.read, *setup.left]
    for key in ("backend", "cpu_moe_offload_layers", "gpu_split", "tensor_parallel", "autosplit_reserve", "lora.loras"):
        assert any(key in said for said in told), key
    assert any("cuda_malloc_async" in said for said in setup.left)
    assert setup.unknown == ["model.surprise", "network.newest", "services"]
    assert setup.no_memory == ["model.rope_alpha", "network.port"]


def test_several_cards_are_split_as_it_says(tabby: Tabby) -> None:
    two = ("device=2xrtx_3090",)
    assert case_of(tabby(V2, typed=two)).split == "auto(96,0)"
    assert case_of(tabby(V2, "autosplit_reserve: [512, 96.5]", typed=two)).split == "auto(512,96.5)"
    assert case_of(tabby(V2, "gpu_split: [20, 24]", typed=two)).split == "gpu_split(20,24)"
    assert case_of(tabby(V2, "gpu_split: [20]", "tensor_parallel: true", typed=two)).split == "tensor_parallel(20,0)"
    with pytest.raises(BadInput, match="gpu_split names 3 cards, and device has 2"):
        tabby(V2, "gpu_split: [1, 2, 3]", typed=two)
    with pytest.raises(BadInput, match="nothing tells what goes where"):
        tabby(V2, "gpu_split_auto: false", typed=two)


def test_what_is_typed_beside_it_comes_first_and_is_said(tabby: Tabby) -> None:
    setup = tabby(V2, "cache_mode: Q6", "max_seq_len: 8192", typed=("cache=Q4", "model=tinyllama_1_1b", "bpw=3.0"))
    assert (case_of(setup).cache, case_of(setup).model.name) == ("Q4", "tinyllama_1_1b")
    assert setup.left["model.cache_mode: Q6"] == "cache was typed beside it"


def test_a_draft_model_is_loaded_beside_it_or_said_to_come_on_top(tabby: Tabby) -> None:
    more = "draft_model:\n  draft_model_name: draft\n  draft_cache_mode: Q4\n  draft_num_tokens: 6\n"
    setup = tabby(V2, more=more)
    case = case_of(setup)
    assert (case.draft_name, case.draft_cache, case.num_draft_tokens, case.load_as) == ("draft", "Q4", 4, None)
    assert "whatever it says" in setup.left["draft_model.draft_num_tokens: 6"]
    without = tabby(V3, more=more)
    assert "come on top" in without.left["draft_model.draft_model_name: draft"]
    ngram = tabby(V3, more="draft_model:\n  draft_mode: ngram\n  draft_num_tokens: 6\n")
    assert (case_of(ngram).draft, case_of(ngram).num_draft_tokens) == ("ngram", 6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services:\n  web:\n    image: x\n", r"no config.yml of TabbyAPI's: .*\(found: services\)"),
        ("model: /models/llama\n", "no config.yml of TabbyAPI's"),
        ("- a\n- b\n", "no list of keys and values"),
        ("model: [\n", "no readable YAML"),
        ("model: !!python/object/apply:os.system [ls]\n", "no readable YAML"),
        ("a: &a [1]\nb: *a\n", "line 2: aliases are not read"),
        ("model:\n  backend: exllamav2\n  backend: exllamav3\n", "line 3: backend is there twice"),
        (f"a: {'[' * 5000}\n", "nested more than 16 deep"),
        ("model:\n  model_name: tiny\n  backend: vllm\n", "model.backend=vllm: allowed are exllamav2, exllamav3"),
        ("model:\n  model_name: tiny\n  cache_size: 1000\n", "model.cache_size=1000: allowed are .* multiple of 256"),
        ("model:\n  model_name: tiny\n  max_batch_size: true\n", "max_batch_size=True: allowed are a whole number"),
        ("model:\n  model_name: tiny\n  gpu_split: [.nan]\n", r"gpu_split=\[nan\]: allowed are a list of GB"),
        ("model:\n  model_name: none_such\n", "there is no model here; name the model beside it"),
        ("model:\n  backend: exllamav2\n", "model.model_name is not there"),
        ("draft_model: 3\nmodel:\n  model_name: tiny\n", "draft_model: allowed are keys and values below it"),
    ],
)
def test_what_is_no_such_file_is_refused_in_a_line(tabby: Tabby, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    with pytest.raises(BadInput, match=said) as refused:
        read_tabby(path, ["device=rtx_3090"])
    assert str(refused.value).count("\n") == 0


def test_a_file_that_is_too_long_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_bytes(b"#" * (300 << 10))
    with pytest.raises(BadInput, match="longer than 262,144 bytes"):
        read_tabby(path, [])
    with pytest.raises(BadInput, match="no such file"):
        read_tabby(tmp_path / "none.yml", [])
    with pytest.raises(BadInput, match=r"no regular file|cannot be read"):
        read_tabby(tmp_path, [])


def test_several_engines_or_numbers_of_cards_beside_one_file_are_refused(tabby: Tabby) -> None:
    with pytest.raises(BadInput, match="has several engines"):
        tabby(typed=("engine=exllamav2,exllamav3", "device=rtx_3090"))
    with pytest.raises(BadInput, match="has several numbers of cards"):
        tabby(V2, typed=("device=rtx_3090,2xrtx_3090",))
