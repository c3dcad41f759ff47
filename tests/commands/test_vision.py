"""`vision=true` through the command line: beside the same without, in a part of its own, and refused before it runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Program

MIB = 1 << 20
# The parameters of a tower with its projector, two bytes each: as published, less the text model.
TOWERS = {"gemma_3_4b": 2 * 419_816_304, "mistral_small_3_1_24b": 2 * 438_958_080}


@pytest.mark.parametrize("model", TOWERS)
def test_a_tower_is_beside_its_model(in_process: Program, tmp_path: Path, model: str) -> None:
    asked = [f"model={model}", "bpw=3.0", "device=rtx_3090", "max_seq_len=1024", "vision=false,true"]
    done = in_process("sweep", *asked, f"results_dir={tmp_path}", "run_id=one")
    assert done.returncode == 0, done.stderr
    blind, both = (row for _, row in pd.read_parquet(tmp_path / "one" / "cases.parquet").iterrows())
    assert [bool(blind["vision"]), bool(both["vision"])] == [False, True]
    assert blind["vision_bytes"] == 0
    assert 0 <= both["vision_bytes"] - TOWERS[model] < 12 * MIB  # and what is left over in its blocks
    assert both["predicted_peak_bytes"] == both["peak_allocated_bytes"]
    assert both["estimated_decode_tokens_per_s"] == blind["estimated_decode_tokens_per_s"]
    assert any("weights only; an image's activations are not counted" in note for note in both["notes"])
    told = (tmp_path / "one" / "report" / "recommendations.md").read_text()
    assert f"{model} (with its vision tower)" in told
    assert "ExLlamaV2VisionTower(config)" in told
    assert "\n  vision: true\n" in told


def test_on_several_cards_it_is_on_the_first_and_found_by_runs(in_process: Program, tmp_path: Path) -> None:
    asked = ["model=gemma_3_4b", "bpw=3.0", "device=2xrtx_3090", "max_seq_len=512", "vision=true"]
    done = in_process("sweep", *asked, f"results_dir={tmp_path}", "run_id=one")
    assert done.returncode == 0, done.stderr
    case = pd.read_parquet(tmp_path / "one" / "cases.parquet").iloc[0]
    assert case["outcome"] == "fits"
    assert pd.isna(case["predicted_peak_bytes"])
    first, second = (row for _, row in pd.read_parquet(tmp_path / "one" / "memory.parquet").iterrows())
    assert first["vision_bytes"] > 800 * MIB
    assert second["vision_bytes"] == 0
    assert any("patch_embedding (Convolution)" in module for module in first["modules"])


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            ["model=tinyllama_1_1b"],
            "vision=true: tinyllama_1_1b (LlamaForCausalLM) has no vision tower that ExLlamaV2 loads; it loads",
        ),
        (["model=gemma_3_4b", "engine=exllamav3"], "vision=true: exllamav3's vision towers are not loaded here"),
    ],
)
def test_what_has_no_tower_is_refused_before_anything_is_run(in_process: Program, keys: list[str], told: str) -> None:
    done = in_process("plan", *keys, "device=rtx_4090", "vision=true")
    assert done.returncode == 2
    assert told in done.stderr
