"""The real machine's own lines, with ExLlamaV2's, over a CUDA that is simulated: nothing here has seen a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch

from bench.core.case import Case
from bench.core.messages import CardResult, Memory, Message, PhaseDone, Result, Started, last
from bench.core.outcome import Phase
from bench.core.split import Split, SplitBy
from bench.scenarios.base import Pace
from bench.worker import scenario
from bench.worker.cuda.machine import CudaMachine
from bench.worker.engines.exllamav2.engine import EXLLAMAV2
from bench.worker.interfaces.card import Machine
from bench.worker.simulated.machine import SimulatedMachine, open_machine
from tests.worker.conftest import made_up_case
from tests.worker.test_cards import WIDE, on

MIB = 1 << 20
CACHE_BYTES = 2 * 2 * 8 * 2048 * 4 * 128  # FP16, keys and values, layers, tokens, heads, and their width


@contextmanager
def as_real(case: Case, simulated: SimulatedMachine) -> Iterator[CudaMachine]:
    """The real machine where `torch.cuda` answers for simulated cards; their layout stands in for weights."""
    with (
        mock.patch.object(torch.cuda, "init"),
        mock.patch.object(torch.cuda, "can_device_access_peer", return_value=False),
        # No address: that of the storage's own object tells storages apart, too.
        mock.patch.object(torch.UntypedStorage, "data_ptr", lambda storage: storage._cdata),
    ):
        machine = CudaMachine(case, EXLLAMAV2, case.devices)
        machine.pace = simulated.pace
        with (
            mock.patch.object(machine, "model_dir", simulated.model_dir),
            mock.patch.object(machine, "import_engine", simulated.import_engine),
        ):
            yield machine


def told(case: Case, machine: Machine, layouts: Path) -> list[Message]:
    messages: list[Message] = []
    scenario.run(case, machine, layouts, messages.append)
    return messages


def counted(messages: list[Message]) -> list[tuple[Phase, list[tuple[int, ...]]]]:
    """What PyTorch counted on each card after each phase."""

    def of(memory: Memory) -> tuple[int, ...]:
        peaks = (memory.peak_allocated_bytes, memory.peak_requested_bytes, memory.peak_reserved_bytes)
        return (memory.allocated_bytes, memory.reserved_bytes, *peaks)

    done = [message for message in messages if isinstance(message, PhaseDone)]
    return [(each.phase, [of(memory) for memory in (each.memory, *each.others)]) for each in done]


def cards(messages: list[Message]) -> list[CardResult]:
    result = last(messages, Result)
    assert result is not None
    return result.cards


@pytest.mark.parametrize(
    "split",
    [Split(SplitBy.AUTO), Split(SplitBy.TENSOR_PARALLEL, (0.5, 0.5))],
    ids=lambda split: str(split.by),
)
def test_a_real_machine_tells_of_each_card_what_pytorch_counts_there(split: Split, layouts: Path) -> None:
    case = on(made_up_case(WIDE, max_input_len=256, lazy=split.by is SplitBy.AUTO), 650 * MIB, 8 << 30, split=split)
    with open_machine(case, EXLLAMAV2, case.devices) as simulated:
        expected = told(case, simulated, layouts)
    with open_machine(case, EXLLAMAV2, case.devices) as simulated, as_real(case, simulated) as machine:
        messages = told(case, machine, layouts)
    assert counted(messages) == counted(expected)
    started = last(messages, Started)
    assert started is not None
    assert "cards 0 and 1 do not reach each other's memory" in started.notes
    assert [facts.device_total_bytes for facts in (started.facts, *started.others)] == [650 * MIB, 8 << 30]
    for own, other in zip(cards(messages), cards(expected), strict=True):
        assert (own.modules, own.layers) == (other.modules, other.layers)
        assert own.parts["workspace_bytes"] is None  # PyTorch without CUDA cannot free them
        # In whole blocks of the allocator, which tensors do not know; and autosplit's peak is an attempt that failed.
        assert all(0 < (own.parts[name] or 0) <= (other.parts[name] or 0) for name in ("weights_bytes", "cache_bytes"))
    assert sum(own.parts["cache_bytes"] or 0 for own in cards(messages)) == CACHE_BYTES


def test_jobs_are_timed_as_often_as_asked_and_each_time_in_a_cache_that_is_empty(layouts: Path) -> None:
    """What a real card decodes to be timed has room beside the prompts, and takes no more than is simulated."""
    served = {"scenario": "generator", "batch_size": 2, "max_input_len": 256, "max_seq_len": 1024}
    case = made_up_case(WIDE, total_bytes=8 << 30, repeats=3, **served)
    with open_machine(case, EXLLAMAV2, case.devices) as simulated:
        expected = told(case, simulated, layouts)
    with open_machine(case, EXLLAMAV2, case.devices) as simulated, as_real(case, simulated) as machine:
        machine.pace = Pace(40, 32, case.repeats)
        messages = told(case, machine, layouts)
    timings = {each.phase: each.timings for each in messages if isinstance(each, PhaseDone)}
    assert len(timings[Phase.PREFILL].prefill_s or []) == 3
    assert timings[Phase.PREFILL].prefill_tokens == 2 * (1024 - 3 * 32 - 1)
    assert [
        len(samples or []) for samples in (timings[Phase.DECODE].decode_full_s, timings[Phase.DECODE].decode_s)
    ] == [3, 3]
    assert timings[Phase.DECODE].decode_tokens == 2 * 32
    own, theirs = (last(told_of, PhaseDone) for told_of in (messages, expected))
    assert own is not None
    assert theirs is not None
    assert own.memory.peak_allocated_bytes == theirs.memory.peak_allocated_bytes
    result = last(messages, Result)
    assert result is not None
    assert (result.peak_host_bytes or 0) > 100 * MIB
