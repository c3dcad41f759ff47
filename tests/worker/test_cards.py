"""Several simulated cards: which one an operator takes memory of, and what ExLlamaV2's splits put on each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import pytest
import torch

from bench.allocator.oom_text import card_of
from bench.core.case import Case
from bench.core.messages import CardResult, Failure, Memory, Message, PhaseDone, Result, Started, last, read_message
from bench.core.requests import RunCase
from bench.core.split import Split, SplitBy
from bench.notes.rules import NO_PEER_ACCESS_NOTE
from bench.worker import child, scenario
from bench.worker.engines.exllamav2.engine import EXLLAMAV2
from bench.worker.interfaces.engine import Unsupported
from bench.worker.simulated.machine import SimulatedMachine, open_machine
from tests.worker.conftest import catalogue_case, made_up_case
from tests.worker.test_scenario import TINY

MIB = 1 << 20
KIB = 1 << 10
WIDE = {
    **TINY,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
}


def on(case: Case, *total_bytes: int, split: Split | None = None) -> Case:
    """The case on cards of these sizes, which are otherwise like its own."""
    first, *more = (replace(case.device, total_memory_bytes=size) for size in total_bytes)
    return replace(case, device=first, more_devices=tuple(more), split=None if split is None else str(split))


@dataclass
class Run:
    """What one case came to on each card."""

    messages: list[Message]
    memory: list[Memory]

    @property
    def results(self) -> list[CardResult]:
        """What was told of each card at the end."""
        result = last(self.messages, Result)
        assert result is not None
        return result.cards

    @property
    def layers(self) -> list[int]:
        """How many layers' keys and values each card has."""
        return [each.layers for each in self.results]


Runner = Callable[..., Run]


@pytest.fixture
def run(layouts: Path) -> Runner:
    def run_case(case: Case, peer_access: bool = False) -> Run:
        messages: list[Message] = []
        with open_machine(case, EXLLAMAV2, case.devices, peer_access) as machine:
            scenario.run(case, machine, layouts, messages.append)
            return Run(messages, [card.memory() for card in machine.cards])

    return run_case


@pytest.fixture
def machine() -> object:
    case = on(made_up_case(TINY), 1 << 30, 1 << 30)
    with open_machine(case, EXLLAMAV2, case.devices) as opened:
        yield opened


def allocated(machine: SimulatedMachine) -> list[int]:
    return [card.allocator.stats.allocated_bytes for card in machine.cards]


def peaks(machine: SimulatedMachine) -> list[int]:
    """The highest of each card since it was last asked."""
    found = [card.allocator.stats.peak_allocated_bytes for card in machine.cards]
    for card in machine.cards:
        card.allocator.reset_peak()
    return found


# Figures of the real engine's loader with two RTX 4090, of which the null GPU takes the same.
@pytest.mark.parametrize(
    ("split", "layers", "reserved_mib"),
    [
        (Split(SplitBy.AUTO), [50, 30], [23_678, 16_036]),
        (Split(SplitBy.GPU_SPLIT, (20.0, 24.0)), [49, 31], [22_122, 16_006]),
        (Split(SplitBy.TENSOR_PARALLEL), [80, 80], [19_466, 19_504]),
    ],
)
def test_llama_70b_lands_on_two_cards_as_the_engine_puts_it(
    run: Runner, split: Split, layers: list[int], reserved_mib: list[int]
) -> None:
    case = catalogue_case("model=llama_3_1_70b", "bpw=4.0", "device=rtx_4090", "max_seq_len=8192", "attention=flash")
    result = run(replace(case, more_devices=(case.device,), split=str(split)), peer_access=True)
    assert result.layers == layers
    weights = [(each.parts["weights_bytes"] or 0) / MIB for each in result.results]
    assert sum(weights) == pytest.approx(33_530, abs=30)
    assert [memory.peak_reserved_bytes / MIB for memory in result.memory] == reserved_mib
    if split.by is SplitBy.TENSOR_PARALLEL:
        assert weights == pytest.approx([16_759, 16_782], abs=2)
        assert [(each.parts["cache_bytes"] or 0) / MIB for each in result.results] == [1280, 1280]


@pytest.mark.parametrize("cache", ["FP16", "Q4"])
@pytest.mark.parametrize(
    "split",
    [Split(), Split(SplitBy.GPU_SPLIT, (0.12, 0.12, 8)), Split(SplitBy.TENSOR_PARALLEL, (8.0, 8.0, 8.0))],
)
def test_the_parts_of_each_card_sum_to_its_peak(run: Runner, cache: str, split: Split) -> None:
    case = made_up_case(WIDE, cache=cache, max_input_len=256)
    result = run(on(case, 570 * MIB, 440 * MIB, 8 << 30, split=split))
    assert len(result.results) == 3
    assert all(each.layers for each in result.results)
    for each, memory in zip(result.results, result.memory, strict=True):
        assert sum(size or 0 for size in each.parts.values()) == memory.peak_allocated_bytes
        assert each.parts["other_bytes"] == 0


def test_every_message_says_of_all_cards_what_it_says_of_the_first(run: Runner) -> None:
    case = made_up_case(WIDE, max_input_len=256)
    result = run(on(case, 1 << 30, 1 << 30, split=Split(SplitBy.GPU_SPLIT, (0.15, 1))))
    started = last(result.messages, Started)
    assert started is not None
    assert len(started.others) == 1
    assert NO_PEER_ACCESS_NOTE in started.notes
    assert all(len(message.others) == 1 for message in result.messages if isinstance(message, PhaseDone))
    assert result.results[0].modules[0] == "model.layers.0 (Attention)"
    assert result.results[1].modules[-1] == "lm_head (Linear)"


def test_the_card_that_runs_out_of_memory_is_named(run: Runner) -> None:
    case, split = made_up_case(WIDE, max_input_len=256), Split(SplitBy.GPU_SPLIT, (0.15, 1))
    free = run(on(case, 1 << 30, 1 << 30, split=split))
    first, second = (memory.peak_reserved_bytes for memory in free.memory)
    for sizes, index in (((first, second - 8 * MIB), 1), ((first - 8 * MIB, second), 0)):
        with pytest.raises(torch.OutOfMemoryError) as caught:
            run(on(case, *sizes, split=split))
        assert card_of(str(caught.value)) == index
    assert run(on(case, first, second, split=split)).layers == free.layers == [5, 3]


def test_a_failure_tells_what_each_card_held_and_which_was_full(layouts: Path) -> None:
    split = Split(SplitBy.GPU_SPLIT, (0.15, 1))
    case = on(made_up_case(WIDE, max_input_len=256), 1 << 30, 100 * MIB, split=split)
    told: list[Message] = []
    with mock.patch.object(os, "write", lambda fd, line: told.append(read_message(line))):
        assert child.run_request(RunCase(case, layouts), -1) == child.EXIT_FAILED
    failure = last(told, Failure)
    assert failure is not None
    assert failure.memory is not None
    assert failure.card == 1
    assert failure.others[0].reserved_bytes <= 100 * MIB < failure.memory.reserved_bytes


def test_autosplit_keeps_free_what_it_is_told(run: Runner) -> None:
    case, sizes = made_up_case(WIDE, lazy=True, max_input_len=256), (650 * MIB, 8 << 30)
    as_usual = run(on(case, *sizes))
    assert run(on(case, *sizes, split=Split(reserve_bytes=(192 * MIB, 64 * MIB)))).memory == as_usual.memory
    assert run(on(case, *sizes, split=Split(reserve_bytes=(0, 0)))).layers == [8, 0]
    assert as_usual.layers == [5, 3]


@pytest.mark.parametrize(
    ("config", "axes", "reason"),
    [
        ({"architectures": ["Gemma2ForCausalLM"]}, {}, "it has none for this architecture"),
        ({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 4, "num_experts_per_tok": 2}, {}, "experts"),
        ({"intermediate_size": 1440}, {}, "intermediate_size is 1440, and it needs a multiple of 128"),
        ({"head_dim": 64}, {}, "its buffers are 256 wide, and hidden_size is 512"),
        ({}, {"attention": "sdpa"}, "it needs flash-attn, and attention is sdpa here"),
        ({}, {"bpw": 16.0, "head_bits": None}, "it divides quantised layers only"),
    ],
)
def test_what_tensor_parallelism_cannot_do_is_refused_before_anything_is_loaded(
    run: Runner, config: dict[str, object], axes: dict[str, object], reason: str
) -> None:
    case = made_up_case({**TINY, "moe_intermediate_size": 768, **config}, **axes)
    with pytest.raises(Unsupported, match=f"with tensor parallelism: .*{reason}"):
        run(on(case, 1 << 30, 1 << 30, split=Split(SplitBy.TENSOR_PARALLEL)))


def test_tensor_parallelism_that_would_divide_a_layer_among_other_cards_than_its_output_is_refused(
    run: Runner,
) -> None:
    # The engine gives no card less than 256 columns, of the layer's width and of the model's: the fewest of the latter.
    case, split = made_up_case(WIDE, max_input_len=256), Split(SplitBy.TENSOR_PARALLEL, (8.0, 1.0, 8.0))
    with pytest.raises(Unsupported, match=r"divides an MLP among cards 0, 1, 2 and its output among 0, 2: give card 1"):
        run(on(case, 8 << 30, 8 << 30, 8 << 30, split=split))


def test_a_card_s_tables_and_scratch_come_with_its_first_matrix_as_the_engine_makes_them(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = on(made_up_case(WIDE, max_input_len=256), 1 << 30, 1 << 30, split=Split(SplitBy.GPU_SPLIT, (0.225, 1)))
    short = run(case)
    assert short.layers == [8, 0]
    assert short.results[1].modules == ["lm_head (Linear)"]
    monkeypatch.setattr(type(EXLLAMAV2), "shortcuts", lambda engine, cuda: contextlib.nullcontext())
    phases = [
        [(done.phase, done.memory, done.others) for done in each.messages if isinstance(done, PhaseDone)]
        for each in (short, run(case))
    ]
    assert phases[0] == phases[1]


def test_the_card_that_multiplies_first_decides_the_workspaces_of_all() -> None:
    case = on(made_up_case(TINY), 1 << 30, 1 << 30)
    for capabilities, size_bytes in ((("8.6", "12.0"), 8_519_680), (("12.0", "8.6"), 32 * MIB)):
        devices = tuple(
            replace(device, compute_capability=capability)
            for device, capability in zip(case.devices, capabilities, strict=True)
        )
        with open_machine(case, EXLLAMAV2, devices) as machine:
            for card in machine.cards:
                card.use_cublas()
            assert allocated(machine) == [size_bytes, size_bytes]


def test_a_tensor_is_on_the_card_that_was_named_or_else_on_the_current_one(machine: SimulatedMachine) -> None:
    held = [torch.empty(KIB, dtype=torch.uint8, device=device) for device in ("cuda:1", 1, torch.device(1))]
    assert allocated(machine) == [0, 3 * KIB]
    with torch.cuda.device(1):
        held.append(torch.zeros(KIB, dtype=torch.uint8, device="cuda"))
    held.append(torch.empty(KIB, dtype=torch.uint8, device="cuda"))
    held.append(torch.empty_like(held[-1], device=1))
    held.append(held[0] + held[1])
    assert allocated(machine) == [KIB, 6 * KIB]
    assert [tensor.device.index for tensor in held] == [1, 1, 1, 1, 0, 1, 1]
    assert torch.cuda.memory_allocated(1) == torch.cuda.memory_stats("cuda:1")["allocated_bytes.all.current"] == 6 * KIB
    assert torch.cuda.mem_get_info(1) == ((1 << 30) - 2 * MIB, 1 << 30)


def test_a_stream_brings_its_device_with_it_and_takes_it_back(machine: SimulatedMachine) -> None:
    stream = torch.cuda.Stream(torch.device(1))
    with torch.cuda.stream(stream):
        assert torch.cuda.current_device() == 1
        assert [card.stream for card in machine.cards] == [0, stream.stream_id]
    assert torch.cuda.current_device() == 0
    assert [card.stream for card in machine.cards] == [0, 0]
    torch.cuda.set_stream(stream)
    assert torch.cuda.current_device() == 1
    assert stream.cuda_stream


@pytest.mark.parametrize(
    ("peer_access", "non_blocking", "dtype", "columns", "extra_kib"),
    [
        (False, False, torch.float16, 32, [0, 0]),
        (True, True, torch.float32, 16, [0, 0]),
        (False, True, torch.float16, 16, [32, 0]),  # a slice is made contiguous where it is read
        (False, True, torch.float32, 16, [64, 0]),  # and converted there
        (False, False, torch.float32, 16, [32, 32]),  # or where it is written, if the host waits
    ],
)
def test_cards_without_peer_access_copy_plain_runs_of_bytes_only(
    peer_access: bool, non_blocking: bool, dtype: torch.dtype, columns: int, extra_kib: list[int]
) -> None:
    case = on(made_up_case(TINY), 1 << 30, 1 << 30)
    with open_machine(case, EXLLAMAV2, case.devices, peer_access) as machine:
        source = torch.empty((1024, 32), dtype=torch.float16, device="cuda:0")[:, :columns]
        before = allocated(machine)
        peaks(machine)
        target = source.to("cuda:1", dtype, non_blocking=non_blocking)
        after = allocated(machine)
        assert after == [before[0], 1024 * columns * dtype.itemsize]
        taken = [peak - size for peak, size in zip(peaks(machine), after, strict=True)]
        assert taken == [size * KIB for size in extra_kib]
        assert target.device == torch.device(1)


def test_types_are_converted_on_the_host_unless_it_does_not_wait(machine: SimulatedMachine) -> None:
    source = torch.empty(KIB, dtype=torch.float16, device="cuda:1")
    held = allocated(machine)[1]
    torch.empty(KIB).copy_(source)
    assert peaks(machine)[1] == held
    torch.empty(KIB).copy_(source, non_blocking=True)
    assert peaks(machine)[1] == held + 4 * KIB


def test_pinned_memory_takes_none_of_a_card(machine: SimulatedMachine) -> None:
    pinned = torch.empty(1 << 30, dtype=torch.float16, pin_memory=True)
    assert pinned.device.type == "cpu"
    assert allocated(machine) == [0, 0]


def test_another_card_and_another_split_are_another_case() -> None:
    case, versions = made_up_case(TINY), {"harness_version": "1"}
    others = [replace(case, more_devices=(case.device,) * count) for count in (1, 2)] + [replace(case, split="auto")]
    assert len({each.case_id(versions) for each in (case, *others)}) == 4
    assert all(Case.from_json(each.to_json()) == each for each in others)
