"""From a command line to cases: axes, the catalogue, local models, and every way of asking for nonsense."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bench.config import compose as config
from bench.config import devices, hydra_compose
from bench.config.cases import plan_sweep, work_of
from bench.config.lengths import lengths_of
from bench.config.models import resolve_model
from bench.config.settings import ModelSettings, Settings
from bench.config.units import parse_rate, parse_size
from bench.core.case import DEFAULT_ENGINE, Case, ModelSpec, Search
from bench.core.device import DeviceSpec
from bench.core.errors import BadInput
from bench.engines.registry import engine_of
from bench.nvml import Gpu

GIB = 1 << 30
VERSIONS: dict[str, str | None] = {"torch_version": "2.13.0", "exllamav2_version": "0.3.2"}
BITS_PER_WEIGHT = round((16384 + 1024 + 512 + 32 + 64) / 4096, 2)  # the fixture's layers: q_weight and its company


def _refusal(*overrides: str) -> str:
    with pytest.raises(BadInput) as caught:
        plan_sweep(overrides)
    message = str(caught.value)
    assert message.count("\n") <= 1
    return message


# Axes


def test_without_overrides_there_is_one_cell_on_the_default_simulated_card() -> None:
    sweep = plan_sweep([])
    (search,) = sweep.searches
    longest = search.longest
    assert sweep.cases == []
    assert (longest.device.name, longest.device.kind) == (devices.DEFAULT_SIMULATED, "simulated")
    assert (longest.bpw, longest.cache, longest.lazy, longest.max_seq_len) == (4.0, "FP16", False, 131072)


def test_axes_multiply() -> None:
    cases = plan_sweep(
        ["device=rtx_4090,l4", "bpw=2.5,4.0,6.0", "cache=FP16,Q4", "lazy=false,true", "max_seq_len=2048,8192"]
    ).cases
    assert len(cases) == 2 * 3 * 2 * 2 * 2
    assert len({(c.device.name, c.bpw, c.cache, c.lazy, c.max_seq_len) for c in cases}) == len(cases)


def test_a_range_is_an_axis() -> None:
    assert [search.longest.bpw for search in plan_sweep(["bpw=range(3,6)"]).searches] == [3.0, 4.0, 5.0]


def test_values_are_typed() -> None:
    overrides = ["bpw=4", "lazy=true", "max_seq_len=4096", "batch_size=2", "vram_limit=16GiB", "timeout_s=5"]
    (case,) = plan_sweep(overrides).cases
    assert isinstance(case.bpw, float)
    assert (case.lazy, case.max_seq_len, case.batch_size, case.vram_limit_bytes) == (True, 4096, 2, 16 * GIB)


@pytest.mark.parametrize(
    "said",
    [
        ["max_seq_len=1024", "max_seq_len=256,512"],
        ["max_seq_len=1024,2048", "max_seq_len=range(256,513,256)"],
        ["max_seq_len=[1024]", "cache=Q4,Q6", "cache=FP16", "max_seq_len=256,512"],
    ],
)
def test_the_last_word_on_a_key_counts(said: list[str]) -> None:
    cases = plan_sweep(["device=t4", *said]).cases
    assert [(case.cache, case.max_seq_len) for case in cases] == [("FP16", 256), ("FP16", 512)]
    (case,) = plan_sweep(["device=t4", *said, "max_seq_len=768"]).cases
    assert case.max_seq_len == 768


def test_a_value_given_twice_is_one_case() -> None:
    assert len(plan_sweep(["bpw=4.0,4.0,4", "max_seq_len=4096,4096"]).cases) == 1


def test_a_list_of_lengths_is_walked_like_an_axis() -> None:
    listed, swept = (plan_sweep([f"max_seq_len={value}"]).cases for value in ("[2048,8192]", "2048,8192"))
    assert listed == swept


def test_a_nested_key_can_be_an_axis() -> None:
    searches = plan_sweep(["device=rtx_4090", f"device.total_memory_bytes={8 * GIB},{16 * GIB}"]).searches
    assert [search.longest.device.total_memory_bytes for search in searches] == [8 * GIB, 16 * GIB]


def test_the_allocator_is_the_engine_s_own_unless_one_is_named() -> None:
    allocators = {
        word: [search.longest.allocator for search in plan_sweep([f"allocator={word}", "max_seq_len=auto"]).searches]
        for word in ("auto", "native", "Expandable", "native,expandable")
    }
    assert allocators == {
        "auto": [engine_of(DEFAULT_ENGINE).allocator],
        "native": ["native"],
        "Expandable": ["expandable"],
        "native,expandable": ["native", "expandable"],
    }


def test_a_bpw_of_16_is_allowed() -> None:
    assert plan_sweep(["bpw=16"]).searches[0].longest.bpw == 16.0


def test_the_quickstart_has_72_cells() -> None:
    sweep = plan_sweep(["experiment=quickstart"])
    assert (len(sweep.cases), len(sweep.searches)) == (0, 72)
    assert {search.longest.device.name for search in sweep.searches} == {"rtx_3060_12gb", "rtx_4090", "a100_40gb"}


@pytest.mark.parametrize(
    ("override", "num_cases", "num_cells"),
    [
        ("bpw=3.0", 0, 24),
        ("bpw=3.0,5.0", 0, 48),
        ("device=l4", 0, 24),
        ("batch_size=1,2", 0, 144),
        ("max_seq_len=2048", 72, 0),
    ],
)
def test_an_override_replaces_an_axis_of_the_experiment(override: str, num_cases: int, num_cells: int) -> None:
    sweep = plan_sweep(["experiment=quickstart", override])
    assert (len(sweep.cases), len(sweep.searches)) == (num_cases, num_cells)


def test_settings_that_are_no_axes_come_with_the_sweep() -> None:
    overrides = ["results_dir=/elsewhere", "timeout_s=5", "jobs=2", "rerun=true", "repeats=1", "max_seq_len=4096"]
    sweep = plan_sweep(overrides)
    settings = sweep.settings
    assert (settings.results_dir, settings.timeout_s, settings.jobs, settings.rerun) == ("/elsewhere", 5.0, 2, True)
    assert sweep.cases[0].repeats == 1


def test_a_launcher_is_found_and_leaves_the_cases_alone() -> None:
    overrides = ["hydra/launcher=basic", "bpw=3.0,4.0"]
    assert config.launcher_override(overrides) == "basic"
    assert config.launcher_override(["bpw=3.0,4.0"]) is None
    assert len(plan_sweep(overrides).searches) == 2


# Lengths that are to be found


@pytest.mark.parametrize("override", ["max_seq_len=auto,4096", "max_seq_len=[auto,4096]"])
def test_auto_stands_among_lengths_and_is_the_cell_beside_their_cases(override: str) -> None:
    overrides = ["cache=FP16,Q4", override]
    sweep = plan_sweep(overrides)
    assert [(case.cache, case.max_seq_len) for case in sweep.cases] == [("FP16", 4096), ("Q4", 4096)]
    assert [search.longest.cache for search in sweep.searches] == ["FP16", "Q4"]
    assert [search.at(4096) for search in sweep.searches] == sweep.cases


def test_a_cell_that_is_asked_for_twice_is_one() -> None:
    sweep = plan_sweep(["max_seq_len=auto,auto", "bpw=4.0,4"])
    assert (len(sweep.cases), len(sweep.searches)) == (0, 1)


def test_a_cell_of_weights_that_are_there_is_one_whatever_the_bpw_asked_for(
    model_dir: Path, write_exl2: Callable[..., None]
) -> None:
    write_exl2(model_dir, "model.layers.0.mlp.up_proj")
    (search,) = plan_sweep(["model=local", f"model.path={model_dir}", "bpw=3.0,6.0"]).searches
    assert (search.longest.bpw, search.search_end) == (BITS_PER_WEIGHT, 4096)


def test_a_cell_goes_up_to_the_limit_of_its_model() -> None:
    searches = plan_sweep(["model=phi_3_medium_128k,tinyllama_1_1b"]).searches
    assert [search.search_end for search in searches] == [131072, 2048]


# Choices of models and devices

EVERYTHING_ELSE = [
    [],
    ["bpw=2.5,4.0", "cache=Q4"],
    ["experiment=quickstart", "bpw=3.0"],
    [f"device.total_memory_bytes={8 * GIB}", "model.config.hidden_size=64"],
    [f"device.total_memory_bytes={8 * GIB},{16 * GIB}"],
    ["model.config={hidden_size:64},{vocab_size:32}"],
    ["model.source=4_25,{bpw}", "device.index=0"],
    ["+model.config.new_key=1"],
    ["model.name='${device.name}'"],
    ["vram_limit='${device.total_memory_bytes}',1GiB"],
]


def _one_by_one(models: list[str], cards: list[str], rest: list[str]) -> list[dict[str, Any]]:
    choices = [[f"model={model}", f"device={card}", *rest] for model in models for card in cards]
    return [plain for overrides in choices for plain in config.combinations(overrides)]


@pytest.mark.parametrize("rest", EVERYTHING_ELSE, ids=" ".join)
def test_choices_together_are_what_they_are_one_by_one(rest: list[str]) -> None:
    models, cards = ["phi_3_medium_128k", "tinyllama_1_1b"], ["rtx_4090", "l4"]
    together = config.combinations([f"model={','.join(models)}", f"device={','.join(cards)}", *rest])
    assert together == _one_by_one(models, cards, rest)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("model/mine.yaml", "name: mine\nconfig: {hidden_size: 64}"),
        ("model/mine.yaml", "name: mine\nsource: ${device.name}"),
        ("model/mine.yaml", "defaults: [llama_3_8b]\nname: mine"),
        ("model/mine.yaml", "# @package _global_\nmodel: {name: mine}\nhead_bits: 8"),
        ("experiment/mine.yaml", "# @package _global_\nmodel: {source: main}\ndevice: {index: 0}"),
        ("experiment/mine.yaml", "# @package _global_\nexperiment: ${device.name}"),
        ("experiment/mine.yaml", "# @package _global_\ndefaults: [/device/l4@device]"),
        ("experiment/mine.yaml", "# @package device\nindex: 1"),
    ],
    ids=lambda text: text.replace("\n", " "),
)
def test_a_file_may_use_all_of_hydra(file: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = tmp_path / "conf"
    shutil.copytree(config.config_dir(), catalogue)
    (catalogue / file).write_text(text)
    monkeypatch.setattr(hydra_compose, "config_dir", lambda: catalogue)
    rest = ["experiment=mine"] if file.startswith("experiment") else []
    models = ["tinyllama_1_1b", "llama_3_8b" if rest else "mine"]
    cards = ["rtx_4090", "t4"]
    together = config.combinations([f"model={','.join(models)}", f"device={','.join(cards)}", *rest])
    assert together == _one_by_one(models, cards, rest)


def test_hydra_composes_once_whatever_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    composed = []
    monkeypatch.setattr(
        hydra_compose, "compose", lambda *args, **kwargs: composed.append(args) or compose(*args, **kwargs)
    )
    bits = "bpw=range(3.0,5.0)"  # which Hydra reads
    searches = plan_sweep(["model=llama_3_8b,mistral_7b_v0_3,tinyllama_1_1b", "device=l4,t4", bits]).searches
    assert (len(composed), len(searches)) == (1, 12)
    composed.clear()
    assert len(plan_sweep(["model=llama_3_8b", "device=l4", bits]).searches) == 2
    assert len(composed) == 1


# Nonsense


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cache=Q5", ["cache", "Q5", "FP16", "Q8", "Q6", "Q4"]),
        ("attention=flsh", ["attention", "flsh", "flash", "matmul"]),
        ("bpw=99", ["bpw=99", "16"]),
        ("bpw=1.5", ["bpw=1.5", "2"]),
        ("bpw=9", ["bpw=9", "2.0 to 8.0", "16"]),
        ("bpw=abc", ["bpw=abc", "2.0 to 8.0 bits per weight with exllamav2, 1.0 to 8.0", "or 16"]),
        ("bpw=nan", ["bpw=nan", "16"]),
        ("max_seq_len=-3", ["max_seq_len=-3", "64"]),
        ("max_seq_len=foo", ["max_seq_len=foo: give a number of tokens from 64 to 16,777,216, or auto"]),
        ("max_seq_len=[auto,foo]", ["max_seq_len=foo", "64", "auto"]),
        ("max_seq_len=Auto", ["max_seq_len=Auto", "auto"]),
        ("max_seq_len=null", ["max_seq_len=None", "auto"]),
        ("max_seq_len=true", ["max_seq_len=True", "auto"]),
        ("max_seq_len=99999999", ["max_seq_len=99999999", "16,777,216", "auto"]),
        ("model=llama_3_1_8", ["llama_3_1_8", "llama_3_1_8b"]),
        ("model=qqqq", ["qqqq", "llama_3_1_8b", "tinyllama_1_1b"]),
        ("bwp=4.0", ["bwp", "bpw"]),
        ("device=rtx4090", ["rtx4090", "rtx_4090"]),
        ("experiment=quick", ["quick", "quickstart"]),
        ("vram_limit=abc", ["vram_limit=abc", "24GiB"]),
        ("vram_limit=0", ["vram_limit=0", "24GiB"]),
        ("head_bits=7", ["head_bits=7", "2, 3, 4, 5, 6, 8"]),
        ("+foo=1", ["foo", "bpw", "max_seq_len"]),
        ("model.nokey=1", ["model.nokey"]),
        ("repeats=x", ["repeats=x", "a whole number from 1 on"]),
        ("repeats=0", ["repeats=0", "1"]),
        ("timeout_s=-1", ["timeout_s=-1", "0"]),
        ("lazy=maybe", ["lazy=maybe", "true or false"]),
        ("foo", ["'foo'", "key=value"]),
        ("=3", ["'=3'", "key=value"]),
        ("model=local", ["model=local", "model.path=DIR"]),
        ("device=cuda", ["device=cuda", "no driver", "device=rtx_4090"]),
        ("max_seq_len=[]", ["max_seq_len=[]", "64", "auto"]),
    ],
)
def test_bad_input_is_refused_with_what_was_given_and_what_is_allowed(override: str, said: list[str]) -> None:
    message = _refusal(override)
    assert [text for text in said if text not in message] == []


def test_an_unknown_key_of_a_model_is_answered_with_the_keys_of_a_model() -> None:
    assert "model.path" in _refusal("model.nokey=1")


@pytest.mark.parametrize(
    ("override", "bad"),
    [
        ("bpw=4.0,99,6.0", "99"),
        ("bpw=4.0,9", "9"),
        ("cache=FP16,Q5", "Q5"),
        ("max_seq_len=4096,-3", "-3"),
        ("max_seq_len=4096,99999999", "99999999"),
        ("max_seq_len=auto,99999999", "99999999"),
        ("device=rtx_4090,rtx4091", "rtx4091"),
        ("model=phi_3_medium_128k,nope", "nope"),
        ("vram_limit=20GiB,abc", "abc"),
        ("head_bits=6,7", "7"),
        ("repeats=1,x", "x"),
    ],
)
def test_one_bad_value_among_good_ones_fails_all(override: str, bad: str) -> None:
    assert bad in _refusal("lazy=false,true", override)


@pytest.mark.parametrize("override", ["cache=Q5", "bpw=99,4.0", "max_seq_len=-3", "model=qqqq"])
def test_nothing_of_hydra_is_left_behind_by_a_refusal(override: str) -> None:
    with pytest.raises(BadInput) as caught:
        plan_sweep([override])
    assert not GlobalHydra.instance().is_initialized(), caught.value


# Directories of models


def _local(folder: Path, device: str = "rtx_4090", **settings: Any) -> Case:
    model = ModelSettings(name="local", path=str(folder))
    settings = {"max_seq_len": 4096, **settings}
    (case,) = work_of(Settings(model=model, device=config.device_settings(device), **settings))
    assert isinstance(case, Case)
    return case


def _refused_directory(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        _local(folder)
    message = str(caught.value)
    assert message.count("\n") <= 1
    return message


def test_a_directory_with_only_a_config_is_a_model_without_weights(model_dir: Path) -> None:
    (case,) = plan_sweep(["model=local", f"model.path={model_dir}", "bpw=3.5", "max_seq_len=4096"]).cases
    assert (case.model.name, case.model.path) == ("tiny", str(model_dir))
    assert (case.model.has_weights, case.bpw) == (False, 3.5)
    assert lengths_of(case.model.config).limit == 4096


def test_the_bits_of_weights_that_are_there_win_over_the_bpw_asked_for_and_that_is_told(
    model_dir: Path, write_exl2: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    local = ["model=local", f"model.path={model_dir}", "max_seq_len=4096", "device=rtx_4090"]
    write_exl2(model_dir, "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj")
    (case,) = plan_sweep([*local, "bpw=3.0,6.0"]).cases
    assert case.bpw == BITS_PER_WEIGHT
    assert case.model.has_weights
    told = capsys.readouterr().err
    assert told == (
        f"vram-bench: bpw=3.0,6.0 not used: the weights of tiny are there, and have {BITS_PER_WEIGHT:.4g} bpw\n"
    )
    plan_sweep(local)
    assert capsys.readouterr().err == ""


def test_the_head_does_not_count_towards_the_bpw(model_dir: Path, write_exl2: Callable[..., None]) -> None:
    write_exl2(model_dir, "model.layers.0.mlp.up_proj")
    write_exl2(model_dir, "lm_head", file="output-2.safetensors", bits=8)
    assert _local(model_dir).bpw == BITS_PER_WEIGHT


@pytest.mark.parametrize("head", ["language_model.lm_head", "model.language_model.lm_head", "output"])
def test_the_head_is_known_under_any_prefix(head: str, model_dir: Path, write_exl2: Callable[..., None]) -> None:
    layers = ("language_model.model.layers.0.mlp.up_proj", "model.layers.0.feed_forward.output")
    write_exl2(model_dir, *layers)
    write_exl2(model_dir, head, file="head.safetensors", bits=8)
    assert _local(model_dir).bpw == BITS_PER_WEIGHT


def test_the_bpw_is_taken_over_all_files(model_dir: Path, write_exl2: Callable[..., None]) -> None:
    write_exl2(model_dir, "model.layers.0.mlp.up_proj")
    write_exl2(model_dir, "model.layers.1.mlp.up_proj", file="output-2.safetensors", bits=8)
    assert _local(model_dir).bpw == pytest.approx(BITS_PER_WEIGHT + 2, abs=0.01)


def test_weights_of_8_bits_are_accepted_with_what_their_scales_add(
    model_dir: Path, write_exl2: Callable[..., None]
) -> None:
    write_exl2(model_dir, "model.layers.0.mlp.up_proj", bits=8)
    assert _local(model_dir).bpw == pytest.approx(BITS_PER_WEIGHT + 4, abs=0.01)


def test_weights_that_are_not_quantised_have_16_bits(model_dir: Path) -> None:
    save_file({"model.embed_tokens.weight": np.ones((8, 8), np.float16)}, model_dir / "model.safetensors")
    assert _local(model_dir, bpw=4.0).bpw == 16.0


def test_a_directory_is_known_by_what_is_in_it_and_not_by_where_it_is(
    model_dir: Path, tmp_path: Path, write_exl2: Callable[..., None]
) -> None:
    write_exl2(model_dir, "model.layers.0.mlp.up_proj")
    moved, changed = tmp_path / "moved" / "tiny", tmp_path / "changed" / "tiny"
    shutil.copytree(model_dir, moved)
    shutil.copytree(model_dir, changed)
    write_exl2(changed, "lm_head", file="output-2.safetensors")
    ids = [_local(folder).case_id(VERSIONS) for folder in (model_dir, moved, changed)]
    assert ids[0] == ids[1] != ids[2]


def test_a_path_that_does_not_exist_is_refused_from_the_command_line_on(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere'}: no such directory" in _refusal("model=local", f"model.path={tmp_path / 'nowhere'}")


def test_a_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    message = _refused_directory(tmp_path)
    assert str(tmp_path) in message
    assert "no config.json" in message


@pytest.mark.parametrize("text", ["{", "[1]", '"text"', ""])
def test_a_config_that_is_no_json_object_is_refused(model_dir: Path, text: str) -> None:
    (model_dir / "config.json").write_text(text)
    assert str(model_dir / "config.json") in _refused_directory(model_dir)


@pytest.mark.parametrize(
    "header", [b"", b"\xff" * 64, (1 << 40).to_bytes(8, "little") + b"{}", (20).to_bytes(8, "little") + b'{"a": 1']
)
def test_a_broken_safetensors_header_is_refused(model_dir: Path, header: bytes) -> None:
    file = model_dir / "output.safetensors"
    file.write_bytes(header)
    assert f"{file}: broken safetensors header" in _refused_directory(model_dir)


def test_a_truncated_safetensors_file_is_refused(model_dir: Path, write_exl2: Callable[..., None]) -> None:
    write_exl2(model_dir, "model.layers.0.mlp.up_proj")
    file = model_dir / "output.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert str(file) in _refused_directory(model_dir)


# The catalogue


def test_every_model_composes_and_is_named_like_its_file() -> None:
    names = [name for name in config.names("model") if name not in ("local", "hub", "spark_formalizer_x1_7b")]
    composed = config.combinations(["model=all"])
    models = [resolve_model(config.validate(plain).model) for plain in composed]
    assert [model.name for model in models] == names
    assert [model.name for model in models if (lengths_of(model.config).limit or 0) < 2048 or model.has_weights] == []
    configs = {json.dumps(model.config, sort_keys=True) for model in models}
    assert len({model.fingerprint for model in models}) == len(configs)  # some are published with one config.json


def test_cards_are_called_what_cuda_calls_them() -> None:
    """Variants of one name are told apart by their memory, in the catalogue's own names."""
    searches = plan_sweep(["device=rtx_3060_12gb,rtx_4060_8gb,rtx_4060_ti_16gb,t4"]).searches
    names = [search.longest.device.full_name for search in searches]
    assert names == [*(f"NVIDIA GeForce RTX {number}" for number in ("3060", "4060", "4060 Ti")), "Tesla T4"]


def test_every_simulated_card_composes_and_is_named_like_its_file() -> None:
    names = [name for name in config.names("device") if name not in ("cuda", "auto")]
    cards = [search.longest.device for search in plan_sweep([f"device={','.join(names)}"]).searches]
    assert [card.name for card in cards] == names
    assert {card.kind for card in cards} == {"simulated"}
    assert [card.name for card in cards if not 4 * GIB < card.total_memory_bytes < 200 * GIB] == []
    assert [card.name for card in cards if not card.context_bytes or card.context_bytes > GIB] == []
    assert [card.name for card in cards if card.compute_capability is None] == []


# Real GPUs

GPU = Gpu(0, "GPU-1", "NVIDIA RTX A6000", 48 * GIB, "8.6", "580.1", "13.0")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_that_is_there_is_taken(
    device: str, model_dir: Path, write_exl2: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "find_gpus", lambda: ([GPU], None))
    write_exl2(model_dir, "model.layers.0.mlp.up_proj")
    spec = _local(model_dir, device).device
    assert (spec.name, spec.kind, spec.uuid, spec.total_memory_bytes) == ("nvidia_rtx_a6000", "cuda", "GPU-1", 48 * GIB)


@pytest.mark.parametrize(
    ("says", "name"),
    [
        ("NVIDIA A100-SXM4-40GB", "nvidia_a100_sxm4_40gb"),
        ("Quadro RTX 6000/8000 (Max-Q)", "quadro_rtx_6000_8000_max_q"),
    ],
)
def test_a_gpu_s_name_can_be_part_of_a_file_s(
    says: str, name: str, model_dir: Path, write_exl2: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "find_gpus", lambda: ([dataclasses.replace(GPU, name=says)], None))
    write_exl2(model_dir, "model.layers.0.mlp.up_proj")
    assert _local(model_dir, "cuda").device.name == name


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_gpus", lambda: ([GPU], None))
    assert _refusal("device=cuda", "device.index=3").startswith("device.index=3")


def test_a_real_gpu_needs_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_gpus", lambda: ([GPU], None))
    message = _refusal("device=cuda", "model=llama_3_8b")
    assert "llama_3_8b" in message
    assert "model.path=DIR" in message
    assert "device=rtx_4090" in message


# Identity of cases

CASE = Case(
    model=ModelSpec("tiny", {"architectures": ["LlamaForCausalLM"]}, "f1", "/models/tiny", 4.0),
    device=DeviceSpec("rtx_4090", "simulated", "NVIDIA GeForce RTX 4090", 24 * GIB),
    bpw=4.0,
    head_bits=6,
    cache="FP16",
    lazy=False,
    attention="auto",
    max_seq_len=4096,
    batch_size=1,
    max_input_len=2048,
)


CHANGES: list[dict[str, Any]] = [
    {"model": dataclasses.replace(CASE.model, name="other")},
    {"model": dataclasses.replace(CASE.model, fingerprint="f2")},
    {"device": dataclasses.replace(CASE.device, name="rtx_3090")},
    {"device": dataclasses.replace(CASE.device, total_memory_bytes=16 * GIB)},
    {"device": dataclasses.replace(CASE.device, context_bytes=1)},
    {"bpw": 4.5},
    {"head_bits": 8},
    {"cache": "Q4"},
    {"lazy": True},
    {"attention": "matmul"},
    {"max_seq_len": 8192},
    {"batch_size": 2},
    {"max_input_len": 1024},
    {"vram_limit_bytes": 8 * GIB},
    {"vram_limit_by": "process"},
    {"repeats": 1},
    {"max_attention_size": 1024**2},
    {"allocator": "expandable"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_case_that_differs_in_any_axis_has_another_id(change: dict[str, Any]) -> None:
    assert dataclasses.replace(CASE, **change).case_id(VERSIONS) != CASE.case_id(VERSIONS)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_cell_that_differs_in_any_axis_or_the_end_of_its_search_has_another_id(change: dict[str, Any]) -> None:
    assert Search(dataclasses.replace(CASE, **change)).boundary_id(VERSIONS) != Search(CASE).boundary_id(VERSIONS)


@pytest.mark.parametrize("name", VERSIONS)
def test_a_case_under_another_version_has_another_id(name: str) -> None:
    assert CASE.case_id({**VERSIONS, name: "9"}) != CASE.case_id(VERSIONS)
    assert Search(CASE).boundary_id({**VERSIONS, name: "9"}) != Search(CASE).boundary_id(VERSIONS)


SIMULATED = dataclasses.replace(
    CASE,
    model=ModelSpec("größer", {"hidden_size": 64}, "f2"),
    device=DeviceSpec("l4", "simulated", "NVIDIA L4", 22 * GIB, "8.9", 58, 300e9, 400 << 20, "measured"),
    bpw=2.5,
    head_bits=None,
    cache="Q4",
    lazy=True,
    vram_limit_bytes=8 * GIB,
    repeats=1,
)
MEASURED = dataclasses.replace(
    CASE,
    model=ModelSpec("m@4_25", {}, "f3", "/m", 4.26, "org/m", "c0ffee"),
    device=DeviceSpec(
        name="nvidia_rtx_a6000",
        kind="cuda",
        full_name="NVIDIA RTX A6000",
        total_memory_bytes=48 * GIB,
        compute_capability="8.6",
        index=0,
        uuid="GPU-1",
        driver_version="580.1",
    ),
    bpw=4.26,
    head_bits=None,
    attention="flash",
    batch_size=2,
    max_input_len=1024,
)


@pytest.mark.parametrize(
    ("case", "case_id", "boundary_id"),
    [
        (CASE, "9a5b1d6597e7ae95", "f6e1b97c726fdd68"),
        (SIMULATED, "d84f4e3cc741d7d0", "0ef709e8defcc489"),
        (MEASURED, "b6496f037578a691", "2168e7eb8aeab1b7"),
    ],
    ids=["plain", "simulated", "measured"],
)
def test_ids_stay_what_they_are_in_rows_that_are_stored(case: Case, case_id: str, boundary_id: str) -> None:
    """Where one must change, SCHEMA_VERSION says so, and everything is measured again."""
    assert case.case_id(VERSIONS) == case_id
    assert Search(case).boundary_id(VERSIONS) == boundary_id


def test_a_field_that_is_added_later_changes_no_id_but_where_it_is_used() -> None:
    grown = dataclasses.make_dataclass("Grown", [("added", int, 7)], bases=(Case,), frozen=True)
    values = {field.name: getattr(CASE, field.name) for field in dataclasses.fields(CASE)}
    assert grown(**values).case_id(VERSIONS) == CASE.case_id(VERSIONS)
    assert grown(**values, added=8).case_id(VERSIONS) != CASE.case_id(VERSIONS)


def test_a_key_with_its_usual_value_changes_no_id() -> None:
    (plain,), (told,) = (
        plan_sweep(["device=t4", "max_seq_len=512", *more]).cases
        for more in ([], ["engine=exllamav2", "scenario=Fill"])
    )
    assert told == plain
    assert told.case_id(VERSIONS) == plain.case_id(VERSIONS)


def test_a_remark_on_a_card_or_its_place_among_others_is_no_part_of_the_id() -> None:
    for remark in (
        {"context_basis": "x"},
        {"workspace_basis": "x"},
        {"index": 3},
        {"full_name": "x"},
        {"first_forward_bytes": 1},
    ):
        told = dataclasses.replace(MEASURED, device=dataclasses.replace(MEASURED.device, **remark))  # type: ignore[arg-type]
        assert told.case_id(VERSIONS) == MEASURED.case_id(VERSIONS)
    for fact in ({"total_memory_bytes": 1 << 30}, {"uuid": "GPU-other"}, {"context_bytes": 1}, {"name": "other"}):
        other = dataclasses.replace(MEASURED, device=dataclasses.replace(MEASURED.device, **fact))  # type: ignore[arg-type]
        assert other.case_id(VERSIONS) != MEASURED.case_id(VERSIONS)


def test_the_id_does_not_depend_on_the_order_of_keys() -> None:
    assert CASE.case_id(dict(reversed(VERSIONS.items()))) == CASE.case_id(VERSIONS)
    overrides = ["bpw=3.0", "cache=Q4", "lazy=true"]
    (one,), (other,) = plan_sweep(overrides).searches, plan_sweep(overrides[::-1]).searches
    assert one.longest.case_id(VERSIONS) == other.longest.case_id(VERSIONS)


def test_the_fingerprint_does_not_depend_on_the_order_of_a_configs_keys() -> None:
    document = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "vocab_size": 32000}
    backwards = dict(reversed(document.items()))
    one, other = (resolve_model(ModelSettings(name="tiny", config=c)).fingerprint for c in (document, backwards))
    changed = resolve_model(ModelSettings(name="tiny", config={**document, "hidden_size": 65})).fingerprint
    assert one == other != changed


def test_where_a_model_lies_is_no_part_of_the_id() -> None:
    moved = dataclasses.replace(CASE, model=dataclasses.replace(CASE.model, path="/elsewhere"))
    assert moved.case_id(VERSIONS) == CASE.case_id(VERSIONS)


def test_a_case_survives_json() -> None:
    again = Case.from_json(CASE.to_json())
    assert again == CASE
    assert again.case_id(VERSIONS) == CASE.case_id(VERSIONS)
    assert json.loads(CASE.to_json())["vram_limit_bytes"] is None


def test_a_cell_is_told_by_all_but_its_length() -> None:
    search = Search(CASE)
    assert (search.search_end, search.at(512)) == (4096, dataclasses.replace(CASE, max_seq_len=512))


# Sizes


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("24GiB", 24 * GIB),
        ("24 gib", 24 * GIB),
        (" 1.5GiB ", 3 * GIB // 2),
        ("512MiB", 512 << 20),
        ("1KiB", 1024),
        ("24GB", 24 * 10**9),
        ("5MB", 5 * 10**6),
        ("5kB", 5000),
        ("100B", 100),
        ("25250627584", 25250627584),
        (25250627584, 25250627584),
        ("1048576", 1 << 20),
    ],
)
def test_sizes_are_read_as_people_type_them(text: str | int, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@given(count=st.integers(1, 1 << 20))
def test_whole_units_are_exact(count: int) -> None:
    assert parse_size(f"{count}MiB") == count << 20


@pytest.mark.parametrize(
    ("text", "meant"),
    [("24", "24GiB"), (24, "24GiB"), (9.78, "9.78GiB"), ("1048575", "1048575MiB"), (11910, "11910MiB")],
)
def test_a_number_without_a_unit_that_can_be_no_bytes_is_refused(text: str | float, meant: str) -> None:
    with pytest.raises(ValueError, match=meant):
        parse_size(text)


def test_a_bandwidth_without_a_unit_that_can_be_no_bytes_per_second_is_refused() -> None:
    assert parse_rate(936e9) == parse_rate("936GB/s") == parse_rate("936000000000")
    for rate, meant in ((936, "936GB/s"), ("3.35", "3.35TB/s"), (0.936, "0.936TB/s")):
        with pytest.raises(ValueError, match=meant):
            parse_rate(rate)


@pytest.mark.parametrize("text", ["abc", "", "GiB", "-5GiB", "0", "0GiB", "24XiB", "24GiB/s", "1,5GiB", "1e9", "0.4B"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="24GiB"):
        parse_size(text)
