"""`plan --tabby` and `sweep --tabby`: another program's configuration, answered from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.config.test_hub import LLAMA
from tests.conftest import Program

CARD = ("device=rtx_3060_12gb", "vram_limit=384MiB")
FILE = """
model:
  model_name: tiny
  backend: exllamav2
  max_seq_len: 1024
  cache_size: 2048
  cache_mode: Q4
  surprise: 1
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    path = tmp_path / "config.yml"
    path.write_text(FILE)
    return path


def test_a_plan_says_whether_it_fits_and_a_sweep_certifies_how_far_it_goes(in_process: Program, config: Path) -> None:
    planned = in_process("plan", "--tabby", "config.yml", *CARD)
    assert planned.returncode == 0, planned.stderr
    said = " ".join(planned.stdout.split())
    assert "model.cache_mode: Q4: cache=Q4" in said
    assert "Not known, and not taken into account: model.surprise" in said
    assert "Q4: fits, with " in said
    assert "what to raise: cache_size to " in said
    assert "cache_mode to FP16, with " in said
    document = json.loads(in_process("plan", "--tabby", "config.yml", *CARD, "--json").stdout)
    (answer,) = document["setup"]["answers"]
    assert (answer["fits"], answer["finest_cache_that_fits"], answer["basis"]) == (True, "FP16", "predicted")
    assert answer["longest_max_seq_len"] == 4096
    assert [case["cache"] for case in document["cases"]] == ["Q4"]  # what was asked beside it is in the answer
    swept = in_process("sweep", "--tabby", "config.yml", *CARD)
    assert swept.returncode == 0, swept.stderr
    assert "Not known, and not taken into account: model.surprise" in " ".join(swept.stderr.split())
    (file,) = config.parent.glob("results/*/boundaries.parquet")
    rows = {row["search_axis"]: row for row in pq.read_table(file).to_pylist()}
    assert rows["cache_size"]["fits_at"] == answer["largest_cache_size"]
    assert rows["cache_size"]["certified"]


@pytest.mark.parametrize("command", ["plan", "sweep"])
def test_what_cannot_be_read_ends_with_exit_code_2_and_nothing_written(
    in_process: Program, config: Path, command: str
) -> None:
    config.write_text("services: {}\n")
    refused = in_process(command, "--tabby", "config.yml")
    assert refused.returncode == 2
    assert "no config.yml of TabbyAPI's" in refused.stderr
    assert refused.stderr.count("\n") <= 2
    assert not (config.parent / "results").exists()
    both = in_process(command, "--tabby", "config.yml", "--webui", "--api")
    assert both.returncode == 2
