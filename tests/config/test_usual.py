"""What is composed without Hydra is what Hydra composes, to the last key; what is not so composed is left to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bench.config import hydra_compose, usual_compose, usual_overrides
from bench.config.catalogue import Catalogue, config_dir
from bench.config.compose import combinations
from bench.config.conf_files import read
from bench.config.overrides import parse
from bench.core.errors import BadInput

USUAL = [
    [],
    [f"model={','.join(Catalogue().listed('model')[::9])}"],
    ["device=all"],
    ["device=t4", "bpw=2.5,4.0,16", "lazy=true"],
    ["model=local", "model.path=/some/where,else", "device=auto", "max_seq_len=8k,auto,2048", "retry=crash,error"],
    ["device=2xrtx_3090,rtx_4090+rtx_3060_12gb", "split=best,auto", "vram_limit=8GiB"],
    ["experiment=pull_request", "cache=Q4", "device.index=1", "model.name=a"],
    ["experiment=quickstart", "model=hub", "model.repo=a/b,c/d", "model.revision={bpw}bpw,null", "device=cuda"],
    ["draft=ngram", "scenario=generator", "cache_size=64k", "device.total_memory_bytes=12GiB,3000000"],
]
UNUSUAL = [
    ["bpw=range(2,5)"],
    ["max_seq_len=[auto,2048]"],
    ["device=glob(rtx*)"],
    ["model.config.hidden_size=64"],
    ["model.name=${device.name}"],
    ["+model.config.new_key=1"],
    ["hydra.verbose=true"],
    ["hydra.searchpath=[/tmp]"],
    ["hydra/launcher=joblib"],
    ["experiment=quickstart,pull_request"],
    ["bpw=4.0", "bpw=5.0"],
    ["bpw="],
    ["model='phi_3_medium_128k'"],
]
WRONG = [
    ["nosuchkey=1"],
    ["model=no_such_model"],
    ["model=null"],
    ["device=17xrtx_3090"],
    ["device=rtx_3090,rtx_3090"],
    ["device=./none.yaml"],
    ["model.revision=main"],
    ["bpw"],
    ["results_dir=\x1b[31m"],
]
# What Hydra's grammar makes something of.
PIECES = st.sampled_from(
    [*"0157-+.,_/~eEkKxa ", "1_0", "GiB", "bpw", "inf", "nan", "true", "Null", "null", "(", "$", "'"]
)


@pytest.mark.parametrize("overrides", USUAL, ids=lambda overrides: " ".join(overrides)[:60])
def test_without_hydra_it_is_what_hydra_composes(overrides: list[str]) -> None:
    composed = usual_compose.combinations(overrides)
    assert composed is not None
    assert repr(composed) == repr(hydra_compose.combinations(overrides))  # 1 is not 1.0, and keys have an order
    assert usual_compose.is_usual(overrides)


@pytest.mark.parametrize("overrides", [*UNUSUAL, *WRONG], ids=" ".join)
def test_what_is_unusual_or_wrong_is_left_to_hydra(overrides: list[str]) -> None:
    assert usual_compose.combinations(overrides) is None


@pytest.mark.parametrize("overrides", WRONG, ids=" ".join)
def test_what_is_wrong_is_refused_by_hydra_s_way(overrides: list[str]) -> None:
    with pytest.raises(BadInput) as by_hydra:
        hydra_compose.combinations(overrides)
    with pytest.raises(BadInput) as refused:
        combinations(overrides)
    assert str(refused.value) == str(by_hydra.value)


@settings(max_examples=300)
@given(key=st.sampled_from(sorted(usual_overrides.KEYS)), pieces=st.lists(PIECES, min_size=1, max_size=5))
def test_a_text_that_is_read_is_what_hydra_reads(key: str, pieces: list[str]) -> None:
    text = f"{key}={''.join(pieces)}"
    try:
        mine = usual_overrides.read([text], Catalogue())[key].values
    except usual_overrides.UnusualError:
        return
    (by_hydra,) = parse([text], Catalogue())
    assert repr(mine) == repr(by_hydra.values)


@pytest.mark.parametrize("path", sorted(config_dir().rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_file_of_the_program_s_says_the_same_to_omegaconf(path: Path) -> None:
    assert repr(read(path)) == repr(OmegaConf.to_container(OmegaConf.load(path)))


def test_another_file_is_read_by_omegaconf(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("a: 1e5\nb: 2026-01-01\nc: '${d}'\nd: .5e+1\n")
    assert read(file) == {"a": 1e5, "b": "2026-01-01", "c": "${d}", "d": 5.0}


def test_a_file_of_the_user_s_own_folder_needs_no_hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "vram-bench" / "device"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("total_memory_bytes: 8GiB\nsources: {a: b}\n")
    (folder / "other.yaml").write_text("total_memory_bytes: ${bpw}\n")
    (folder / "odd.yaml").write_text("total_memory_bytes: 8GiB\nsources: {1: b}\n")
    assert usual_compose.combinations(["device=mine"]) == hydra_compose.combinations(["device=mine"])
    assert usual_compose.combinations(["device=other"]) is None
    assert usual_compose.combinations(["device=odd"]) is None


def test_a_usual_plan_does_not_import_hydra() -> None:
    program = (
        "import sys; from bench.config.cases import plan_sweep; plan_sweep(['device=rtx_4090', 'bpw=3.0,4.0']);"
        "sys.exit(', '.join({'hydra', 'omegaconf', 'antlr4'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).stderr == b"\n"
