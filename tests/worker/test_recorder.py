"""What is predicted from recordings equals the simulated run of the same case, to the byte; or nothing is predicted."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from bench.memory.limits import limits_of
from bench.memory.program import Program, Unpredictable
from bench.memory.replay import Replayer
from bench.memory.schedule import Setup, schedule
from bench.records import Case
from bench.worker.checkpoint import write_checkpoint
from bench.worker.engine import Unsupported
from bench.worker.simulated import card, recorder
from tests.memory import requests
from tests.worker.predicted import Figures, case_of, predict, program_of, simulate, tensor_bytes_of
from tests.worker.test_architectures import ARCHITECTURES

MIB = 1 << 20
ROUTED = {"MixtralForCausalLM", "Qwen3MoeForCausalLM", "GemmoeForCausalLM", "DbrxForCausalLM"}
# Layers that end in the middle of a period, and beyond those that a recording shows.
DEPTHS = {"Gemma2ForCausalLM": 12, "Gemma3ForConditionalGeneration": 27, "Cohere2ForCausalLM": 19}
WINDOWS = {"sliding_window": 300}
ATTENTIONS = {
    "Gemma2ForCausalLM": ("flash", "matmul"),
    "Gemma3ForConditionalGeneration": ("flash", "sdpa", "matmul"),
    "Cohere2ForCausalLM": ("flash", "sdpa", "matmul"),
}
AXES: dict[str, tuple[Any, ...]] = {
    "attention": ("flash", "xformers", "sdpa", "matmul"),
    "cache": ("FP16", "Q8", "Q6", "Q4"),
    "bits": ((4.0, 6), (2.5, None), (16.0, None)),
    "batch_size": (1, 3),
    "max_input_len": (1024, 256, 96),
    "length": range(6),
    "limit": range(5),
}


@pytest.fixture(scope="module", autouse=True)
def little_garbage() -> Iterator[None]:
    """Lazy loading collects garbage; what the imports left behind need not be looked at each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def _covering() -> list[tuple[str, bool, dict[str, Any]]]:
    """Every architecture loaded both ways; with them every pair of values of two other axes, as far as they go round."""
    open_pairs = {
        ((a, x), (b, y)) for a, b in combinations(["lazy", *AXES], 2) for x, y in product(_values(a), _values(b))
    }
    cells = []
    for architecture, lazy in product(ARCHITECTURES, (False, True)):
        chosen: dict[str, Any] = {"lazy": lazy}
        for axis, values in AXES.items():
            allowed = ATTENTIONS.get(architecture, values) if axis == "attention" else values
            chosen[axis] = max(
                allowed, key=lambda value: sum(((k, v), (axis, value)) in open_pairs for k, v in chosen.items())
            )
        open_pairs -= set(combinations(chosen.items(), 2))
        cells.append((architecture, lazy, chosen))
    return cells


def _values(axis: str) -> tuple[Any, ...]:
    return (False, True) if axis == "lazy" else AXES[axis]


def _length(number: int, max_input_len: int, architecture: str) -> int:
    """Below a chunk, whole chunks, one token more, odd numbers; whole pages where experts get even shares of them."""
    if architecture in ROUTED:
        return (number + 1) * 256
    longer = 3 * max_input_len + 100
    return (max(64, max_input_len // 2 + 9), max_input_len + 5, 2 * max_input_len + 4, 777, longer, 1024)[number]


def _limit(number: int, need: Figures) -> int:
    """A card about as large as a case needs."""
    allocated, reserved = need.peak_allocated_bytes, need.peak_reserved_bytes
    return (reserved, reserved - 1, allocated, (allocated + reserved) // 2, allocated - 2 * MIB)[number]


@pytest.mark.parametrize(
    ("architecture", "lazy", "chosen"), _covering(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_architecture_is_predicted_to_the_byte(
    layouts: Path, architecture: str, lazy: bool, chosen: dict[str, Any]
) -> None:
    axes = {axis: chosen[axis] for axis in ("lazy", "attention", "cache", "batch_size", "max_input_len")}
    bpw, head_bits = chosen["bits"]
    layers, more = DEPTHS.get(architecture, 7), WINDOWS if architecture in DEPTHS else None
    cell = case_of(architecture, layers, more, bpw=bpw, head_bits=head_bits, **axes)
    program = program_of(cell, layouts)
    if bpw != 16.0:  # widths that were not recorded
        cell = replace(cell, bpw=5.3, head_bits=None if head_bits is None else 8)
    replayer = Replayer(program, tensor_bytes_of(cell, layouts))
    case = replace(cell, max_seq_len=_length(chosen["length"], cell.max_input_len, architecture))
    need, _ = simulate(case, layouts)
    assert predict(replayer, case) == need
    limited = replace(case, vram_limit_bytes=_limit(chosen["limit"], need))
    assert predict(replayer, limited) == simulate(limited, layouts)[0]
