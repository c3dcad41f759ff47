"""The verdict on each kind of ending, with the messages that real software gives."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from bench.core.messages import (
    CardFacts,
    Entered,
    Failure,
    Memory,
    Message,
    PhaseDone,
    PhaseProgress,
    Result,
    Versions,
)
from bench.core.outcome import Outcome, Phase
from bench.launch.supervise import Ending
from bench.run.verdict import _BEFORE_THE_CASE, judge
from bench.worker.ballast import CannotReserve
from bench.worker.interfaces.engine import EngineBroken

GIB, MIB = 1 << 30, 1 << 20
CARD_BYTES = 24 * GIB

TORCH_OOM = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.52 GiB of which 1.19 GiB is free."
    " Including non-PyTorch memory, this process has 22.32 GiB memory in use. Of the allocated memory 21.86 GiB is"
    " allocated by PyTorch, and 10.93 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is"
    " large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for"
    " Memory Management  (https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage)"
)
ASYNCHRONOUS = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be"
    " incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable"
    " device-side assertions.\n"
)
SEARCH = (
    "\nSearch for `{}' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more information."
)
NOT_INITIALIZED = "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"


def _short(text: str) -> str:
    return text.split("\n")[0][:40] or "empty"


def _memory(device_bytes: int | None = 8 * GIB, peak_reserved_bytes: int = 8 * GIB) -> Memory:
    return Memory(
        allocated_bytes=7 * GIB,
        reserved_bytes=8 * GIB,
        device_bytes=device_bytes,
        peak_allocated_bytes=7 * GIB,
        peak_requested_bytes=7 * GIB,
        peak_reserved_bytes=peak_reserved_bytes,
        peak_device_bytes=device_bytes,
    )


def _until(last: Phase, memory: Memory | None = None) -> list[Message]:
    """The messages of a child that went as far as into `last`, all phases before it finished."""
    messages: list[Message] = [Versions("2.13.0", "0.3.2")]
    for phase in Phase:
        if phase is not Phase.DONE:
            messages.append(Entered(phase))
        if phase is last:
            break
        messages.append(PhaseDone(phase, 1.0, memory or _memory()))
    return messages


def _failed(kind: str, message: str, phase: Phase = Phase.LOAD, memory: Memory | None = None) -> Ending:
    return Ending([*_until(phase), Failure(kind, message, memory)], exit_code=3)


def _finished(peak_reserved_bytes: int = 8 * GIB, **how: Any) -> Ending:
    result = Result({}, [], CardFacts())
    messages = [*_until(Phase.DONE, _memory(peak_reserved_bytes=peak_reserved_bytes)), result]
    return Ending(messages, **{"exit_code": 0, **how})


def test_errors_of_before_the_case_are_called_as_the_worker_calls_them() -> None:
    """The parent knows the worker's errors by name alone."""
    assert {CannotReserve.__name__, EngineBroken.__name__} == _BEFORE_THE_CASE


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("OutOfMemoryError", TORCH_OOM),
        ("OutOfMemoryError", "Allocation on device 0 would exceed allowed memory. (out of memory)"),
        ("RuntimeError", "CUDA out of memory"),
        ("RuntimeError", "Insufficient VRAM for model and cache"),
        ("AssertionError", "Insufficient space in device allocation"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        ("RuntimeError", "CUDA error: out of memory" + ASYNCHRONOUS),
        ("AcceleratorError", "CUDA error: out of memory" + SEARCH.format("cudaErrorMemoryAllocation") + ASYNCHRONOUS),
        ("RuntimeError", "CUDA driver error: out of memory"),
        ("OutOfMemoryError", TORCH_OOM.replace("CUDA", "HIP")),
        ("RuntimeError", "HIP out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 15.98 GiB"),
        ("RuntimeError", "HIP error: out of memory\nHIP kernel errors might be asynchronously reported"),
    ],
    ids=_short,
)
def test_every_face_of_full_vram_is_oom(kind: str, message: str) -> None:
    verdict = judge(_failed(kind, message, Phase.CACHE), 900, [CARD_BYTES])
    assert (verdict.outcome, verdict.phase) == (Outcome.OOM, Phase.CACHE)
    assert verdict.error is not None
    assert verdict.error.startswith(f"{kind}: {message.splitlines()[0][:40]}")
    assert "\n" not in verdict.error
    assert len(verdict.error) <= 500


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "RuntimeError",
            "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
            " allocate 137438953472 bytes. Error code 12 (Cannot allocate memory)",
        ),
        ("MemoryError", ""),
        ("MemoryError", "Unable to allocate 64.0 GiB for an array with shape (8589934592,) and data type int64"),
        ("RuntimeError", "Insufficient size of temp_dq buffer"),
        (
            "OutOfResources",
            "out of resource: shared memory, Required: 139264, Hardware limit: 101376. Reducing block sizes or"
            " `num_stages` may help.",
        ),
        ("RuntimeError", "CUDA error: too many resources requested for launch" + ASYNCHRONOUS),
        ("OSError", "[Errno 28] No space left on device: '/root/.cache/torch_extensions'"),
        ("OSError", "[Errno 12] Cannot allocate memory"),
        ("RuntimeError", "Error building extension 'exllamav2_ext': cc1plus: out of memory allocating 65536 bytes"),
        ("RuntimeError", "CUDA error: an illegal memory access was encountered" + ASYNCHRONOUS),
        (
            "AcceleratorError",
            "CUDA error: an illegal memory access was encountered" + SEARCH.format("cudaErrorIllegalAddress"),
        ),
        ("AssertionError", "Total sequence length exceeds cache size in model.forward"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa)`"),
    ],
    ids=_short,
)
def test_false_friends_of_oom_are_errors(kind: str, message: str) -> None:
    full = _memory(device_bytes=CARD_BYTES)
    verdict = judge(_failed(kind, message, Phase.PREFILL, full), 900, [CARD_BYTES])
    assert (verdict.outcome, verdict.phase) == (Outcome.ERROR, Phase.PREFILL)
    assert verdict.error is not None
    assert verdict.error.startswith(f"{kind}:")
    assert "\n" not in verdict.error


@pytest.mark.parametrize(
    ("memory", "total_bytes", "outcome"),
    [
        (_memory(CARD_BYTES - 100 * MIB), CARD_BYTES, Outcome.OOM),
        (_memory(CARD_BYTES), CARD_BYTES, Outcome.OOM),
        (_memory(CARD_BYTES - GIB), CARD_BYTES, Outcome.ERROR),
        (_memory(None), CARD_BYTES, Outcome.ERROR),
        (None, CARD_BYTES, Outcome.ERROR),
        (_memory(CARD_BYTES), None, Outcome.ERROR),
    ],
)
def test_a_cublas_handle_that_cannot_be_made_is_oom_only_on_a_full_card(
    memory: dict[str, Any] | None, total_bytes: int | None, outcome: Outcome
) -> None:
    assert judge(_failed("RuntimeError", NOT_INITIALIZED, memory=memory), 900, [total_bytes]).outcome is outcome


def test_an_abort_out_of_cpp_over_memory_is_oom() -> None:
    log = (
        "loading\nterminate called after throwing an instance of 'c10::OutOfMemoryError'\n"
        "  what():  CUDA out of memory. Tried to allocate 212.00 MiB. GPU 0 has a total capacity of 23.56 GiB\n"
    )
    verdict = judge(Ending(_until(Phase.DECODE), signal=signal.SIGABRT, log_tail=log), 900, [CARD_BYTES])
    assert (verdict.outcome, verdict.phase) == (Outcome.OOM, Phase.DECODE)
    assert verdict.error == (
        "what(): CUDA out of memory. Tried to allocate 212.00 MiB. GPU 0 has a total capacity of 23.56 GiB"
    )


def test_an_abort_whose_message_was_cut_off_is_still_oom() -> None:
    log = "terminate called after throwing an instance of 'c10::OutOfMemoryError'\n"
    assert judge(Ending(_until(Phase.LOAD), signal=signal.SIGABRT, log_tail=log), 900).outcome is Outcome.OOM


def test_an_abort_over_host_memory_is_a_crash() -> None:
    log = "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
    verdict = judge(Ending(_until(Phase.LOAD), signal=signal.SIGABRT, log_tail=log), 900)
    assert verdict.outcome is Outcome.CRASH
    assert verdict.error == "died of SIGABRT; last words: what(): std::bad_alloc"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL])
def test_death_by_a_signal_is_a_crash_that_names_it(number: signal.Signals) -> None:
    verdict = judge(Ending(_until(Phase.PREFILL), signal=number), 900, [CARD_BYTES])
    assert (verdict.outcome, verdict.phase) == (Outcome.CRASH, Phase.PREFILL)
    assert verdict.error is not None
    assert verdict.error.startswith(f"died of {number.name}")


def test_a_kill_from_outside_is_explained() -> None:
    error = judge(Ending(_until(Phase.LOAD), signal=signal.SIGKILL), 900).error
    assert error is not None
    assert "host runs out of memory" in error


def test_a_bad_exit_code_overrules_the_result() -> None:
    verdict = judge(_finished(exit_code=3), 900, [CARD_BYTES])
    assert (verdict.outcome, verdict.error) == (Outcome.CRASH, "exit code 3 after its result")


def test_a_signal_overrules_the_result() -> None:
    verdict = judge(_finished(exit_code=None, signal=signal.SIGSEGV), 900, [CARD_BYTES])
    assert (verdict.outcome, verdict.error) == (Outcome.CRASH, "died after its result of SIGSEGV")


def test_a_failure_overrules_a_result_before_it() -> None:
    ending = _finished(exit_code=3)
    ending.messages.append(Failure("RuntimeError", "no close"))
    assert judge(ending, 900, [CARD_BYTES]).outcome is Outcome.ERROR


@pytest.mark.parametrize("phase", [Phase.LOAD, Phase.DECODE])
def test_a_child_that_was_stopped_at_the_limit_timed_out_where_it_was(phase: Phase) -> None:
    verdict = judge(Ending(_until(phase), signal=signal.SIGKILL, timed_out=True), 12.5, [CARD_BYTES])
    assert (verdict.outcome, verdict.phase) == (Outcome.TIMEOUT, phase)
    assert verdict.error == f"still in phase {phase} after 12.5 s"


def test_a_timeout_says_how_far_the_phase_was_where_that_was_told() -> None:
    progress = PhaseProgress(Phase.PREFILL, 12_288, 40_956, "tokens")
    ending = Ending(_until(Phase.PREFILL), progress, signal=signal.SIGKILL, timed_out=True)
    error = judge(ending, 12.5, [CARD_BYTES]).error
    assert error == "still in phase prefill after 12.5 s, 12,288 of 40,956 tokens done"


def test_a_silent_end_is_a_crash() -> None:
    verdict = judge(Ending(exit_code=0), 900, [CARD_BYTES])
    assert (verdict.outcome, verdict.phase, verdict.error) == (Outcome.CRASH, Phase.LOAD, "ended without a result")


def test_a_silent_exit_1_is_a_crash() -> None:
    verdict = judge(Ending(exit_code=1), 900, [CARD_BYTES])
    assert (verdict.outcome, verdict.phase, verdict.error) == (Outcome.CRASH, Phase.LOAD, "exit code 1 without a word")


def test_the_last_line_of_the_log_explains_an_exit_that_was_not_silent() -> None:
    log = "Traceback (most recent call last):\n  ...\nImportError: libcudart.so.12: cannot open shared object file\n\n"
    verdict = judge(Ending(exit_code=1, log_tail=log), 900, [CARD_BYTES])
    assert verdict.outcome is Outcome.CRASH
    assert verdict.error is not None
    assert verdict.error.endswith("ImportError: libcudart.so.12: cannot open shared object file")
    assert "without a word" not in verdict.error


def test_what_the_engine_cannot_run_is_unsupported() -> None:
    message = "ExLlamaV2 0.3.2 does not know the architecture MambaForCausalLM"
    verdict = judge(_failed("Unsupported", message), 900, [CARD_BYTES])
    assert (verdict.outcome, verdict.phase, verdict.error) == (Outcome.UNSUPPORTED, Phase.LOAD, message)


def test_a_case_that_finished_fits() -> None:
    verdict = judge(_finished(peak_reserved_bytes=CARD_BYTES), 900, [CARD_BYTES])
    assert (verdict.outcome, verdict.phase, verdict.error) == (Outcome.FITS, Phase.DONE, None)


def test_a_warning_about_memory_in_the_log_does_not_undo_a_result() -> None:
    assert judge(_finished(log_tail="retrying after CUDA out of memory\n"), 900, [CARD_BYTES]).outcome is Outcome.FITS


def test_more_memory_than_the_card_has_is_degraded() -> None:
    verdict = judge(_finished(peak_reserved_bytes=CARD_BYTES + 1), 900, [CARD_BYTES])
    assert (verdict.outcome, verdict.phase) == (Outcome.DEGRADED, Phase.DONE)
    assert verdict.error is not None


def test_on_a_card_of_unknown_size_nothing_is_called_degraded() -> None:
    assert judge(_finished(peak_reserved_bytes=CARD_BYTES + 1), 900, [None]).outcome is Outcome.FITS


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.DONE])
def test_the_phase_of_an_oom_is_the_last_that_was_entered(phase: Phase) -> None:
    assert judge(_failed("OutOfMemoryError", TORCH_OOM, phase), 900, [CARD_BYTES]).phase is phase


def test_a_long_message_is_cut_to_one_line() -> None:
    error = judge(_failed("ValueError", "many words\n" * 1000), 900).error
    assert error is not None
    assert len(error) == 500
    assert error.endswith("…")
