"""Models, cards and experiments of the catalogue and of one's own, and keys that would go unused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.allocator.limits import origins
from bench.config import compose as config
from bench.config import hydra_compose
from bench.config.cases import Sweep, plan_sweep
from bench.core.errors import BadInput

GIB = 1 << 30
CARD = "full_name: My card\ntotal_memory_bytes: 10GiB\nmemory_bandwidth_bytes_per_s: 760GB/s\ncompute_capability: 8.6\n"


def _refusal(*overrides: str) -> str:
    with pytest.raises(BadInput) as caught:
        plan_sweep(overrides)
    message = str(caught.value)
    assert message.count("\n") <= 1
    return message


def _cards(sweep: Sweep) -> list[str]:
    return [search.longest.device.name for search in sweep.searches]


# One model is named in one way


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.repo=org/x"], "model.repo=org/x needs model=hub"),
        (["model=llama_3_1_8b", "model.repo=org/x"], "model.repo=org/x needs model=hub; model=llama_3_1_8b"),
        (["model=llama_3_1_8b", "model.revision=4_25"], "model.revision=4_25 needs model=hub"),
        (["model=llama_3_1_8b", "model.path=DIR"], "model.path=DIR and model=llama_3_1_8b name two models"),
        (["model=hub", "model.repo=org/x", "model.path=DIR"], "model.path=DIR and model.repo=org/x name two models"),
        (["model=hub", "model.path=DIR"], "model.path=DIR and model=hub name two models"),
        (["model=local", "model.path=DIR", "model.revision=main"], "model.revision=main is for model=hub"),
        (["model=local", "model.path=DIR", "+model.config.x=1"], "model.config changes models of the catalogue only"),
        (["model=hub", "model.repo=org/x", "+model.config.x=1"], "model.config changes models of the catalogue only"),
        (["model=local", "model.path="], "model.path= is empty"),
        (["model=local", "model.path=DIR/config.json"], "it is a file; give its directory, model.path=DIR"),
        (["model=Qwen/Qwen3-8B:4.0bpw"], "model=hub model.repo=Qwen/Qwen3-8B model.revision=4.0bpw"),
        (["model=./DIR"], "a directory is model=local model.path=./DIR"),
        (["hydra.sweep.dir=elsewhere"], "hydra.sweep.dir has no effect"),
        (["hydra.run.dir=elsewhere"], "hydra.run.dir has no effect"),
        (["hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs has no effect without hydra/launcher"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_key_that_would_go_unused_is_refused(overrides: list[str], said: str, model_dir: Path) -> None:
    assert said.replace("DIR", str(model_dir)) in _refusal(*(text.replace("DIR", str(model_dir)) for text in overrides))


def test_a_path_names_a_model_by_itself_and_a_catalogue_s_config_can_be_changed(model_dir: Path) -> None:
    assert plan_sweep([f"model.path={model_dir}"]).searches[0].longest.model.path == str(model_dir)
    changed = plan_sweep(["model=tinyllama_1_1b", "+model.config.head_dim=32"]).searches[0].longest.model
    assert changed.config["head_dim"] == 32


def test_a_directory_that_is_there_is_told_from_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "a directory is model=local model.path=mine" in _refusal("model=mine")


# Several names at once


def test_names_can_be_chosen_by_pattern_and_all_cards_at_once() -> None:
    cards = _cards(plan_sweep(["device=all"]))
    assert cards == [name for name in config.names("device") if name not in ("auto", "cuda")]
    sweep = plan_sweep(["device=glob(l4*,exclude=*gb)", "model=glob(llama_3_1*,exclude=[*70b,*405b])"])
    assert {"l4", "l40s"} <= set(_cards(sweep))
    assert not {"rtx_4060_8gb", "rtx_4090"} & set(_cards(sweep))
    assert {search.longest.model.name for search in sweep.searches} == {"llama_3_1_8b"}
    assert hydra_compose.fold_lengths(["device=glob(a100*)"]) == ['device="a100_40gb","a100_80gb"']


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("device=glob(zz*)", "no device is called so"),
        ("+experiment=quickstart", "a key that exists needs no +; write experiment=quickstart"),
        ("++model=llama_3_8b", "a key that exists needs no +"),
        ("model=null", "name one"),
        ("hydra.searchpath=[/nowhere]", "/nowhere: no such folder"),
        ("hydra.searchpath=/nowhere", "takes a list of folders"),
        *[
            (override, "device=2xrtx_3090, device=rtx_4090+rtx_3060_12gb or device.index=0+1")
            for override in (
                *("device=rtx_3090,rtx_3090", "device=rtx_3090x2", "device=rtx_3090 x2", "device=rtx_3090*2"),
                *("device.count=2", "device=cuda:0,1", "gpus=2", "device.devices=2"),
            )
        ],
        ("device=2x4070", "More exactly: rtx_4070, rtx_4070_laptop_8gb, rtx_4070_super"),
        ("device=2x3090+l4", "More exactly: rtx_3090, rtx_3090_ti?"),
        ("tensor_parallel_size=2", "split=tensor_parallel"),
        ("device=cuda:1", "device=cuda device.index=1"),
        ("config.yml", "TabbyAPI's config.yml is read by --tabby FILE"),
        ("tabby=config.yml", "TabbyAPI's config.yml is read by --tabby FILE"),
        ("cache_mode=Q4", "Did you mean cache?"),
        ("cache_mode=Q4", "chunk_size as max_input_len, with scenario=generator cache_size"),
        ("chunk_size=1024", "cache_mode as cache"),
        ("model.native_max_seq_len=131072", "Did you mean auto_up_to?"),
        ("rope_alpha=2.5", "no memory"),
        ("gpu_split=[20,24]", "it is for several cards, and this is one; two are device=2xrtx_3090"),
        ("device=rtx_3080", "More exactly: rtx_3080_10gb, rtx_3080_12gb, rtx_3080_20gb, rtx_3080_l"),
        ("device=RTX 3080", "More exactly: rtx_3080_10gb, rtx_3080_12gb, rtx_3080_20gb, rtx_3080_l"),
        ("device=3080", "More exactly: rtx_3080_10gb, rtx_3080_12gb, rtx_3080_20gb, rtx_3080_l"),
        ("device=rtx_3081", "Did you mean rtx_308"),
        ("model=llama-3.1", "More exactly: llama_3_1_405b, llama_3_1_70b, llama_3_1_8b, llama_3_1_nemotron_70b?"),
        ("model=qwen2.5-7b", "Did you mean qwen2_5_7b?"),
        ("max_attention=1", "Did you mean max_attention_size?"),
        ("device.memory_bandwith=760GB/s", "Did you mean device.memory_bandwidth_bytes_per_s"),
        ("device.bandwidth=760GB/s", "Did you mean device.memory_bandwidth_bytes_per_s?"),
        ("model.repository=x", "Did you mean model.repo"),
        ("device=0,1", "a GPU of this machine is device=cuda device.index=0"),
        ("device=cuda,7", "a GPU of this machine is device=cuda device.index=7"),
        ("device=l4,rtx_3080", "More exactly: rtx_3080_10gb"),
        ("device=[0,1]", "a GPU of this machine is device=cuda device.index=0"),
        ("experiment=quickstart,null", "name one, or leave it out. Known: pull_request"),
        ("device.zzz=1", "Known: device.compute_capability, "),
    ],
)
def test_what_cannot_be_chosen_is_told(override: str, said: str) -> None:
    assert said in _refusal(override)


# Cards and folders of one's own


def test_a_card_of_one_s_own_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "my card.yaml").write_text(CARD)
    overrides = [f"device={tmp_path / 'my card.yaml'},l4", "device.index=0"]
    cards = [search.longest.device for search in plan_sweep(overrides).searches]
    assert [card.name for card in cards] == ["my card", "l4"]
    assert (cards[0].kind, cards[0].total_memory_bytes, cards[0].compute_capability) == ("simulated", 10 * GIB, "8.6")
    assert cards[0].memory_bandwidth_bytes_per_s == 760e9
    assert (cards[0].context_bytes, origins(cards[0])["context_bytes"]) == (326_631_404, "assumed")
    assert plan_sweep(hydra_compose.fold_lengths(overrides)).searches == plan_sweep(overrides).searches


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("total_memory: 10GiB", "unknown key 'device.total_memory'. Did you mean device.total_memory_bytes?"),
        ("total_memory_bytes: 10GiX", "device.total_memory_bytes: '10GiX' is not a size"),
        (
            "total_memory_bytes: 9.78",
            "device.total_memory_bytes: 9.78 has no unit and can be no bytes; did you mean 9.78GiB?",
        ),
        ("total_memory_bytes: 10GiB\ncontext_bytes: 300", "did you mean 300MiB?"),
        ("total_memory_bytes: 10GiB\nworkspace_bytes: 8.1", "did you mean 8.1MiB?"),
        ("total_memory_bytes: 10GiB\nmemory_bandwidth_bytes_per_s: 760", "did you mean 760GB/s?"),
        ("full_name: mine", "total_memory_bytes"),
        ("name: 3080\ntotal_memory_bytes: 1GiB", "device.name=3080: it is text; put it in quotes"),
        ("- a\n- b", "not a list of keys and values"),
        ("a: [", "not a readable YAML document"),
    ],
)
def test_what_is_wrong_in_a_file_of_one_s_own_is_told_by_its_key(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    message = _refusal(f"device={tmp_path / 'mine.yaml'}")
    assert said in message
    assert "ConfigKeyError" not in message


def test_a_folder_of_one_s_own_adds_to_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "mine.yaml").write_text(CARD)
    searched = f"hydra.searchpath=[file://{tmp_path}]"
    assert _cards(plan_sweep([searched, "device=mine"])) == ["mine"]
    assert _cards(plan_sweep([searched, "device=glob(m*)"])) == ["mine"]
    (tmp_path / "device" / "l4.yaml").write_text(CARD)
    assert "give yours another name" in _refusal(searched, "device=l4,mine")
    assert "unknown device 'mine'" in _refusal("device=mine")


# Experiments


def _experiment(folder: Path, text: str) -> list[str]:
    (folder / "experiment").mkdir(exist_ok=True)
    (folder / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    return [f"hydra.searchpath=[{folder}]", "experiment=mine"]


def test_an_experiment_s_own_values_count_and_the_command_line_wins(tmp_path: Path) -> None:
    given = _experiment(tmp_path, "bpw: 3.0\ncache: q4\nmax_seq_len: 1k\nbatch_size: 2\n")
    (case,) = plan_sweep([*given, "batch_size=3"]).cases
    assert (case.bpw, case.cache, case.max_seq_len, case.batch_size) == (3.0, "Q4", 1024, 3)
    assert {case.bpw for case in plan_sweep([*given, "bpw=4,5"]).cases} == {4.0, 5.0}


def test_an_experiment_may_choose_the_launcher(tmp_path: Path) -> None:
    given = _experiment(tmp_path, "defaults:\n  - override /hydra/launcher: joblib_of_mine\n")
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "hydra" / "launcher" / "joblib_of_mine.yaml").write_text("_target_: nowhere.Launcher\n")
    assert config.launcher_override(given) == "joblib_of_mine"
    assert config.launcher_override(["experiment=quickstart"]) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("bwp: 3.0\n", "unknown key 'bwp'. Did you mean bpw"), ("device: {total: 1}\n", "device.total_memory_bytes?")],
)
def test_an_unknown_key_of_an_experiment_is_named(text: str, said: str, tmp_path: Path) -> None:
    message = _refusal(*_experiment(tmp_path, text))
    assert said in message
    assert "experiment/mine" in message


# Units


def test_sizes_lengths_and_names_are_read_as_people_type_them() -> None:
    cards = ["device=rtx_3090", "device.total_memory_bytes=10GiB", "device.context_bytes=0"]
    (case,) = plan_sweep(
        [*cards, "max_seq_len=32k", "max_input_len=4K", "cache=q4", "attention=flash_attn_2", "bpw=5.0bpw"]
    ).cases
    assert (case.device.total_memory_bytes, case.device.context_bytes) == (10 * GIB, 0)
    assert (case.max_seq_len, case.max_input_len, case.cache, case.attention, case.bpw) == (
        32768,
        4096,
        "Q4",
        "flash",
        5.0,
    )


@pytest.mark.parametrize("override", ["vram_limit=24", "vram_limit=8GiB,24", "device.total_memory_bytes=24"])
def test_a_size_without_a_unit_is_no_number_of_bytes_wherever_it_stands(override: str, tmp_path: Path) -> None:
    assert "24GiB?" in _refusal("device=l40s", override)
    key, _, value = override.partition("=")
    nested = f"device: {{{key.removeprefix('device.')}: {value}}}" if "device" in key else f"{key}: {value}"
    if "," not in value:
        assert "24GiB?" in _refusal(*_experiment(tmp_path, f"{nested}\n"), "device=l40s")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("bpw=x", "bpw=x: allowed are 2.0 to 8.0 bits per weight with exllamav2, "),
        ("bpw=null", "bpw=null: allowed are"),
        ("cache=Q5", "cache=Q5: allowed are FP16, Q8, Q6, Q4"),
        ("engine=vllm", "engine=vllm: allowed are exllamav2"),
        ("scenario=paged", "scenario=paged: allowed are forward, generator"),
        ("batch_size=true", "batch_size=true: allowed are a whole number from 1 on"),
        ("max_input_len=4x", "max_input_len: '4x' is not a number of tokens; write it as 8192 or 8k (k is 1,024)"),
        ("device.memory_bandwidth_bytes_per_s=fast", "'fast' is not a bandwidth"),
        ("device.compute_capability=8", "device.compute_capability=8: allowed are major.minor"),
        ("run_id=../x", "run_id=../x: allowed are letters"),
    ],
)
def test_a_value_is_refused_with_its_key_in_plain_words(override: str, said: str) -> None:
    message = _refusal("device=l4", override)
    assert said in message
    assert "could not be converted" not in message
