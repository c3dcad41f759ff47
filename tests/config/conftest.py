from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.config import devices

CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "max_position_embeddings": 4096}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans do not depend on the machine that the tests run on."""
    monkeypatch.setattr(devices, "find_gpus", lambda: ([], "no driver"))


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A model's directory without weights."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture
def write_exl2() -> Callable[..., None]:
    """Writes EXL2 weights of layers of 64 by 64 at 4 bits, one for each name, into a model's directory."""

    def write(folder: Path, *layers: str, file: str = "output.safetensors", bits: int = 4) -> None:
        tensors: dict[str, Any] = {"model.norm.weight": np.ones(64, np.float16)}
        for layer in layers:
            tensors[f"{layer}.q_weight"] = np.zeros((64 * bits // 32, 64), np.int32)
            tensors[f"{layer}.q_invperm"] = np.zeros(64, np.int16)
            tensors[f"{layer}.q_scale"] = np.zeros((2, 8), np.int32)
            tensors[f"{layer}.q_scale_max"] = np.zeros(2, np.float16)
            tensors[f"{layer}.q_groups"] = np.array([bits, 0, bits, bits], np.int16)
        save_file(tensors, folder / file)

    return write
