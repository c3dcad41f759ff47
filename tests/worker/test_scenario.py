"""The one scenario on a simulated card: what the engine's own code allocates."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch

from bench.core.case import Case
from bench.core.messages import Entered, Message, PhaseDone, Result, Started, last
from bench.engines.exllamav2.spec import SPEC
from bench.scenarios.base import Pace
from bench.scenarios.forward import FORWARD
from bench.worker import cards, scenario
from bench.worker.interfaces.engine import Unsupported
from tests.worker.conftest import Run, catalogue_case, made_up_case

Runner = Callable[[Case], Run]

MIB = 1 << 20

FOUR_LAYERS = ("model=llama_3_8b", "model.config.num_hidden_layers=4")
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 8192,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
}


@pytest.mark.parametrize(
    ("cache", "bytes_per_token"),
    [("FP16", 16_896), ("Q8", 13_312), ("Q6", 11_264), ("Q4", 9_216)],
)
def test_requested_bytes_of_llama_3_8b_are_affine_in_the_length(run: Runner, cache: str, bytes_per_token: int) -> None:
    """Of four of its layers: 16 KiB of FP16 keys and values a token, or what quantisation leaves of it and one layer of
    FP16, and 512 bytes of RoPE tables.
    """
    lengths = (4096, 8192, 16384)  # from the second chunk of a prefill on
    peaks = [
        run(
            catalogue_case(
                *FOUR_LAYERS, "model.config.max_position_embeddings=16384", f"cache={cache}", f"max_seq_len={n}"
            )
        ).memory.peak_requested_bytes
        for n in lengths
    ]
    assert [(b - a) / (m - n) for a, b, n, m in zip(peaks, peaks[1:], lengths, lengths[1:], strict=False)] == [
        bytes_per_token,
        bytes_per_token,
    ]


CACHES, ATTENTIONS = ("FP16", "Q8", "Q6", "Q4"), ("flash", "xformers", "sdpa", "matmul")


@pytest.mark.parametrize(
    ("attention", "lazy", "cache"),
    [
        # Each two of the three are there each time.
        pytest.param(
            *(attention, lazy, cache),
            marks=[pytest.mark.thorough] * ((CACHES.index(cache) + ATTENTIONS.index(attention) + lazy) % 2),
        )
        for attention, lazy, cache in product(ATTENTIONS, (False, True), CACHES)
    ],
)
def test_every_way_runs_through_all_phases(run: Runner, cache: str, lazy: bool, attention: str) -> None:
    result = run(made_up_case(TINY, cache=cache, lazy=lazy, attention=attention))
    assert [entered.phase for entered in result.of(Entered)] == ["load", "cache", "prefill", "decode"]
    assert [done.phase for done in result.of(PhaseDone)] == ["load", "cache", "prefill", "decode"]
    assert result.of(Started)[0].attention == attention
    assert len(result.of(Result)) == 1


def test_the_parts_are_those_alive_at_the_peak_and_sum_to_it(run: Runner) -> None:
    result = run(catalogue_case("model=llama_3_8b", "max_seq_len=8192"))
    assert sum(size or 0 for size in result.parts.values()) == result.memory.peak_allocated_bytes
    assert result.parts["cache_bytes"] == 8192 * 32 * 2 * 8 * 128 * 2
    assert result.parts["scratch_bytes"] == 2 * 4096 * 128_256  # the head's dequantisation buffer: 1002 MiB
    assert result.parts["other_bytes"] == 0


def test_lazy_loading_costs_memory_on_one_gpu(run: Runner) -> None:
    eager = run(catalogue_case("model=llama_3_8b", "max_seq_len=8192"))
    lazy = run(catalogue_case("model=llama_3_8b", "max_seq_len=8192", "lazy=true"))
    assert lazy.memory.peak_reserved_bytes > eager.memory.peak_reserved_bytes + (400 << 20)
    assert lazy.parts["reserve_bytes"] == (192 + 256) << 20


def test_quantised_caches_are_smaller_in_order(run: Runner) -> None:
    peaks = [
        run(catalogue_case(*FOUR_LAYERS, "max_seq_len=8192", f"cache={cache}")).memory.peak_allocated_bytes
        for cache in ("FP16", "Q8", "Q6", "Q4")
    ]
    assert peaks == sorted(peaks, reverse=True)
    assert len(set(peaks)) == 4


def test_weights_take_the_bits_that_were_asked_for(run: Runner) -> None:
    numel = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    head = 4096 * 128_256 * 6 / 8
    for bpw in (2.5, 4.0, 6.0):
        weights = run(catalogue_case("model=llama_3_8b", f"bpw={bpw}", "max_seq_len=1024")).parts["weights_bytes"]
        assert weights == pytest.approx(numel * bpw / 8 + head, rel=0.03)


def test_the_smallest_card_is_found_between_allocated_and_reserved(run: Runner) -> None:
    free = run(made_up_case(TINY)).memory
    run(made_up_case(TINY, total_bytes=free.peak_reserved_bytes))
    with pytest.raises(torch.OutOfMemoryError):
        run(made_up_case(TINY, total_bytes=free.peak_allocated_bytes - (4 << 20)))


@pytest.mark.parametrize(("spare_mib", "phase"), [(-1100, "load"), (-300, "cache"), (-20, "prefill")])
def test_a_full_card_stops_the_engine_where_a_real_one_would(layouts: Path, spare_mib: int, phase: str) -> None:
    overrides = ("model=llama_3_8b", "max_seq_len=8192", "attention=flash")
    case = catalogue_case(*overrides, f"vram_limit={5876 + 430 + spare_mib}MiB")
    messages: list[Message] = []
    with cards.open_machine(case) as simulated, pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        scenario.run(case, simulated, layouts, messages.append)
    assert last(messages, Entered) == Entered(phase)


def test_out_of_memory_prints_the_segment_that_was_asked_for(run: Runner) -> None:
    """As PyTorch does: segments are whole pieces of 2 MiB, whatever the tensor's size."""
    total_mib = run(made_up_case(TINY)).memory.peak_allocated_bytes // MIB - 4
    with pytest.raises(torch.OutOfMemoryError) as caught:
        run(made_up_case(TINY, total_bytes=total_mib * MIB))
    said = re.fullmatch(
        r"CUDA out of memory\. Tried to allocate (\d+)\.00 MiB\. GPU 0 \(simulated\) has a total capacity of "
        rf"{total_mib}\.00 MiB of which [\d.]+ [KM]iB is free\. Of the allocated memory [\d.]+ MiB is allocated by "
        r"PyTorch, and [\d.]+ [KM]iB is reserved by PyTorch but unallocated\.",
        str(caught.value),
    )
    assert said is not None, str(caught.value)
    assert int(said[1]) % 2 == 0


def test_load_autosplit_says_insufficient_vram(run: Runner) -> None:
    with pytest.raises(RuntimeError, match="Insufficient VRAM for model and cache"):
        run(made_up_case(TINY, total_bytes=470 << 20, lazy=True))


def test_experts_are_routed_evenly_and_the_row_says_so(run: Runner) -> None:
    config = {**TINY, "architectures": ["MixtralForCausalLM"], "num_local_experts": 8, "num_experts_per_tok": 2}
    assert run(made_up_case(config)).of(Result)[0].notes == [
        "context_bytes assumed",
        "workspace_bytes assumed",
        "expert routing assumed balanced",
        SPEC.layout_note,
    ]


def test_the_trap_in_sdpa_is_told(run: Runner) -> None:
    notes = run(made_up_case(TINY, attention="sdpa")).of(Result)[0].notes
    assert any("no causal mask" in note for note in notes)


def test_old_cards_have_no_flash_attention(run: Runner) -> None:
    case = catalogue_case("model=tinyllama_1_1b", "device=t4", "max_seq_len=512")
    assert run(case).of(Started)[0].attention == "xformers"
    with pytest.raises(Unsupported, match="attention=flash is not available"):
        run(catalogue_case("model=tinyllama_1_1b", "device=t4", "max_seq_len=512", "attention=flash"))


def test_soft_caps_rule_out_xformers(run: Runner) -> None:
    with pytest.raises(Unsupported, match="cannot use attention=xformers"):
        run(catalogue_case("model=gemma_2_9b", "max_seq_len=512", "attention=xformers"))


def test_a_second_case_in_one_process_sees_a_new_card(run: Runner) -> None:
    first, second = (run(made_up_case(TINY, lazy=True)).memory for _ in range(2))
    assert first == second


def test_batches_and_chunks_change_what_is_taken(run: Runner) -> None:
    one = run(made_up_case(TINY)).memory.peak_allocated_bytes
    assert run(made_up_case(TINY, batch_size=4)).memory.peak_allocated_bytes > one
    assert run(made_up_case(TINY, max_input_len=256)).memory.peak_allocated_bytes < one


def test_a_cuda_build_of_torch_simulates_without_a_device(tmp_path: Path) -> None:
    """On a machine with a GPU it is hidden from simulated cards: the build's own device guard would ask the driver."""
    script = """
import ctypes, os, torch
torch.version.cuda = "13.0"
from bench.worker import cards
cards.preload("simulated", "exllamav2")
library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libc10.so"))
guards = (ctypes.c_void_p * 32).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
assert guards[1] == guards[14] is not None
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_a_card_that_decodes_more_prefills_as_far(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real card decodes more tokens, for its timings: what it allocates at its peak is the same."""
    few = run(made_up_case(TINY, max_seq_len=512))
    monkeypatch.setattr(type(FORWARD), "simulated_pace", Pace(40, 32))
    many = run(made_up_case(TINY, max_seq_len=512))
    assert [done.timings.prefill_tokens for done in few.of(PhaseDone)] == [None, None, 508, None]
    assert [done.timings.prefill_tokens for done in many.of(PhaseDone)] == [None, None, 508, None]
    assert many.memory.peak_allocated_bytes == few.memory.peak_allocated_bytes


COMPILED_IN_A_CASE = """
import sys
from pathlib import Path
from numba.core import event
from bench.core.case import Case
from bench.core.requests import RunCase
from bench.worker import cards, child

cards.preload("simulated", "exllamav2")
compiled = event.RecordingListener()
event.register("numba:compile", compiled)
request = RunCase(Case.from_json(sys.argv[1]), Path(sys.argv[2]))
assert child.run_request(request, sys.stdout.fileno()) == 0
print(len(compiled.buffer))
"""


def test_nothing_is_compiled_in_a_case_on_a_new_machine(tmp_path: Path) -> None:
    """What the compiler raises and catches keeps the caller's frames alive, and the tensors in them."""
    case = made_up_case({**TINY, "intermediate_size": 5632}, attention="flash")  # rows long enough for CUB's sort
    command = [sys.executable, "-c", COMPILED_IN_A_CASE, case.to_json(), str(tmp_path)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0"
