"""Cases for the simulated card, run in this process: the isolation has tests of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bench.config.cases import work_of
from bench.config.compose import combinations, validate
from bench.core.case import Case, ModelSpec
from bench.core.device import DeviceSpec
from bench.core.messages import Memory, Message
from bench.worker import cards, scenario

M = TypeVar("M")


@dataclass
class Run:
    """What one case came to."""

    messages: list[Message]
    memory: Memory
    parts: dict[str, int | None]

    def of(self, kind: type[M]) -> list[M]:
        """Its messages of one kind."""
        return [message for message in self.messages if isinstance(message, kind)]


def catalogue_case(*overrides: str) -> Case:
    """The case of some overrides, of 4,096 tokens on a simulated A100 unless they say otherwise."""
    (case,) = work_of(validate(combinations(["device=a100_40gb", "max_seq_len=4096", *overrides])[0]))
    assert isinstance(case, Case)
    return case


def made_up_case(config: dict[str, Any], total_bytes: int = 24 << 30, **axes: Any) -> Case:
    """A case of a configuration that is in no catalogue, on a card of any size without a context."""
    base = {
        "bpw": 4.0,
        "head_bits": 6,
        "cache": "FP16",
        "lazy": False,
        "attention": "auto",
        "max_seq_len": 2048,
        "batch_size": 1,
        "max_input_len": 1024,
    }
    device = DeviceSpec("made_up", "simulated", "Made up", total_bytes, "8.9", 128, 1e12, 0, "assumed")
    return Case(ModelSpec("made_up", config, str(sorted(config.items()))), device, **{**base, **axes})


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture
def run(layouts: Path) -> Callable[[Case], Run]:
    def run_case(case: Case) -> Run:
        messages: list[Message] = []
        with cards.open_machine(case) as simulated:
            scenario.run(case, simulated, layouts, messages.append)
            memory = simulated.cards[0].memory()
            parts = simulated.cards[0].parts_at_peak(dict)
        return Run(messages, memory, parts)

    return run_case


@pytest.fixture(autouse=True)
def own_temporary_files() -> Iterator[None]:
    """Where a child puts its temporary files, for the life of its process, is here as it was after each test."""
    before = tempfile.tempdir
    yield
    tempfile.tempdir = before
