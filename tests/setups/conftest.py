from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.config import devices
from bench.setups.setup import Setup
from bench.setups.tabbyapi import read_tabby

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 8192,
    "max_position_embeddings": 32768,
}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read does not depend on the machine that the tests run on."""
    monkeypatch.setattr(devices, "find_gpus", lambda: ([], "no driver"))


@pytest.fixture
def tabby(tmp_path: Path) -> Callable[..., Setup]:
    """Reads a config.yml beside which `models/tiny` and `models/draft` lie; lines are those below `model:`."""
    for name in ("tiny", "draft"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text(json.dumps(LLAMA))

    def read(*lines: str, more: str = "", typed: tuple[str, ...] = ("device=rtx_3090",), **_: Any) -> Setup:
        path = tmp_path / "config.yml"
        path.write_text("model:\n  model_name: tiny\n" + "".join(f"  {line}\n" for line in lines) + more)
        return read_tabby(path, list(typed))

    return read
