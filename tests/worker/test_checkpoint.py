"""Layouts of EXL2 checkpoints: valid safetensors, of the asked size, that exllamav2 loads like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from bench.plan.models import resolve_model
from bench.plan.settings import ModelSettings
from bench.records import Case
from bench.worker.checkpoint import write_checkpoint
from bench.worker.simulated import card
from tests.worker.conftest import Run, catalogue_case


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints") / "tinyllama"
    case = catalogue_case("model=tinyllama_1_1b", "max_seq_len=512")
    with card.open_card(case):
        write_checkpoint(directory, case.model.config, bpw=4.0, head_bits=6)
    return directory


def test_the_file_is_valid_and_takes_no_disk(laid_out: Path) -> None:
    path = laid_out / "model.safetensors"
    with safe_open(path, framework="numpy") as file:
        names = set(file.keys())
        groups = file.get_tensor("model.layers.0.self_attn.q_proj.q_groups")
    assert "lm_head.q_weight" in names
    assert "model.embed_tokens.weight" in names
    assert groups[0] in (2, 3, 4, 5, 6, 8)
    assert path.stat().st_blocks * 512 < path.stat().st_size / 50


@pytest.mark.parametrize("bpw", [2.5, 3.0, 4.0, 5.0, 6.0, 8.0])
def test_the_mean_of_all_layers_is_the_asked_bpw(tmp_path: Path, bpw: float) -> None:
    case = catalogue_case("model=mistral_7b_v0_3", "max_seq_len=512")
    with card.open_card(case):
        write_checkpoint(tmp_path / "m", case.model.config, bpw, head_bits=6)
    assert resolve_model(ModelSettings(name="local", path=str(tmp_path / "m"))).bpw == pytest.approx(bpw, abs=0.05)


def test_weights_on_disk_are_simulated_from_their_headers(laid_out: Path, run: Callable[[Case], Run]) -> None:
    from_catalogue = catalogue_case("model=tinyllama_1_1b", "max_seq_len=512")
    on_disk = resolve_model(ModelSettings(name="local", path=str(laid_out)))
    assert on_disk.bpw == pytest.approx(4.0, abs=0.05)
    assert run(replace(from_catalogue, model=on_disk)).memory == run(from_catalogue).memory
