"""PyTorch's compiler stays out of a worker for simulated cards, and is there for whoever really asks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CASE = """
import sys, tempfile
from pathlib import Path
from bench.worker import scenario
from bench.worker import cards
from tests.worker.conftest import catalogue_case
cards.preload("simulated", "exllamav2")
loaded = set(sys.modules)
case = catalogue_case("model=tinyllama_1_1b", "attention=ATTENTION", "max_seq_len=512")
with tempfile.TemporaryDirectory() as folder, cards.open_machine(case) as simulated:
    scenario.run(case, simulated, Path(folder), lambda report: None)
assert not [name for name in sys.modules if name.startswith(("torch._dynamo.", "torch._inductor"))]
late = {name for name in set(sys.modules) - loaded if name.startswith(("torch", "sympy"))}
assert not late, late  # a fork would import them for each case
"""
_ASKED = """
import sys
from bench.worker import cards
cards.preload("simulated", "exllamav2")
import torch
twice = torch.compile(lambda x: 2 * x, backend="eager")
assert twice(torch.ones(2)).tolist() == [2, 2]
assert torch._dynamo.__path__
"""


@pytest.mark.parametrize(
    "script",
    [
        _CASE.replace("ATTENTION", "sdpa"),
        pytest.param(_CASE.replace("ATTENTION", "matmul"), marks=pytest.mark.thorough),
        _ASKED,
    ],
)
def test_the_compiler_is_loaded_by_who_asks_for_it_alone(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True)
