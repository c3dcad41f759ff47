from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.setups.setup import Setup
from bench.setups.tabbyapi import read_tabby
from tests.config.conftest import no_gpu as no_gpu  # for every test here, too
from tests.config.test_hub import LLAMA

LONGER = {**LLAMA, "max_position_embeddings": 32768}


@pytest.fixture
def tabby(tmp_path: Path) -> Callable[..., Setup]:
    """Reads a config.yml beside which `models/tiny` and `models/draft` lie; lines are those below `model:`."""
    for name in ("tiny", "draft"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text(json.dumps(LONGER))

    def read(*lines: str, more: str = "", typed: tuple[str, ...] = ("device=rtx_3090",), **_: Any) -> Setup:
        path = tmp_path / "config.yml"
        path.write_text("model:\n  model_name: tiny\n" + "".join(f"  {line}\n" for line in lines) + more)
        return read_tabby(path, list(typed))

    return read
