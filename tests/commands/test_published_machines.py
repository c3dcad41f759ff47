"""What people reported of models on several cards (docs/several-cards.md), run again on simulated ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import Program

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "float16",
}


def _run(run: Program, folder: Path, layers: int, *overrides: str) -> list[dict[str, Any]]:
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({**LLAMA, "num_hidden_layers": layers}))
    done = run("sweep", "model=local", f"model.path={model}", "device=2xrtx_3090", "cache=FP16", *overrides)
    assert done.returncode == 0, done.stderr
    return [row for path in (folder / "results").rglob("cases.parquet") for row in pq.read_table(path).to_pylist()]


def test_goliath_120b_takes_what_its_page_says(in_process: Program, tmp_path: Path) -> None:
    """The model's page: 2.64 bpw, 4,096 tokens, split 18/24 on two RTX 3090, 41.7 GB. What it counted is not told."""
    (row,) = _run(in_process, tmp_path, 137, "bpw=2.64", "max_seq_len=4096", "split=[18,24]")
    assert row["outcome"] == "fits"
    assert row["peak_device_bytes"] / 2**30 == pytest.approx(41.7, rel=0.01)


@pytest.mark.thorough
def test_midnight_miqu_70b_fits_two_cards_only_by_hand(in_process: Program, tmp_path: Path) -> None:
    """Its author: 5.0 bpw fits two RTX 3090 at 10,240 tokens. By autosplit it does not, by a split it does."""
    rows = _run(in_process, tmp_path, 80, "bpw=5.0", "max_seq_len=10240", "split=auto,[21,24]")
    assert {row["split"]: row["outcome"] for row in rows} == {"auto": "oom", "gpu_split(21,24)": "fits"}
    (full,) = (row for row in rows if row["outcome"] == "oom")
    assert (full["tightest_card"], full["phase"]) == (1, "load")
    ran_out = [row for path in tmp_path.rglob("memory.parquet") for row in pq.read_table(path).to_pylist()]
    assert [row["card"] for row in ran_out if row["ran_out"]] == [1]
