"""The verdict on a case, from how its child ended.

The parent overrules the child: "done" followed by exit code 3 is a crash.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from bench.core.messages import Failure
from bench.core.outcome import Outcome, Phase
from bench.engines.registry import engines
from bench.launch.supervise import Ending
from bench.run.told import Told

# All messages that were seen when VRAM ran out.
OUT_OF_MEMORY = re.compile(
    "|".join(
        (
            r"CUDA out of memory",
            r"HIP out of memory",
            r"(CUDA|HIP) (driver )?error: out of memory",
            r"cudaErrorMemoryAllocation",
            r"CUBLAS_STATUS_ALLOC_FAILED",
            r"CUDNN_STATUS_ALLOC_FAILED",
            r"c10::(cuda::)?OutOfMemoryError",  # an abort out of C++
            *(text for engine in engines() for text in engine.oom_texts),
        )
    )
)
_OOM_TYPES = frozenset({"OutOfMemoryError"})
# Errors of the harness: the smaller card could not be made, or the engine not be imported (worker/).
_BEFORE_THE_CASE = frozenset({"CannotReserve", "EngineBroken"})
# Its text does not name memory; creating a cuBLAS handle on a full card raises it.
_OOM_IF_FULL = re.compile(r"CUBLAS_STATUS_NOT_INITIALIZED")
_FULL_BELOW_BYTES = 256 << 20


@dataclass(frozen=True)
class Verdict:
    """`error` is one line for the row; None where all went well."""

    outcome: Outcome
    phase: Phase
    error: str | None


def judge(
    ending: Ending, timeout_s: float, device_total_bytes: int | None = None, vram_limit_bytes: int | None = None
) -> Verdict:
    """The verdict on a child that ended as `ending` says, on a card or on the smaller one inside it."""
    told = Told.by(ending.messages)
    phase = told.phase
    # The total that the child read by CUDA is preferred: NVML lists more.
    if told.facts.device_total_bytes is not None:
        device_total_bytes = told.facts.device_total_bytes
    if vram_limit_bytes is not None:
        device_total_bytes = min(device_total_bytes or vram_limit_bytes, vram_limit_bytes)
    if told.failure is not None:
        return _judge_failure(told.failure, phase, device_total_bytes)
    if ending.timed_out:
        far = f", {ending.progress} done" if ending.progress else ""
        return Verdict(Outcome.TIMEOUT, phase, f"still in phase {phase} after {ending.wall_s or timeout_s:.4g} s{far}")
    if told.result is not None and ending.exit_code == 0:
        return _judge_result(told, device_total_bytes)
    if told.result is None and OUT_OF_MEMORY.search(ending.log_tail):
        return Verdict(Outcome.OOM, phase, _last_line(ending.log_tail))
    return Verdict(Outcome.CRASH, phase, _death(ending, told.result is not None))


def _judge_failure(failure: Failure, phase: Phase, device_total_bytes: int | None) -> Verdict:
    message = f"{failure.type}: {failure.message}"
    if failure.type == "Unsupported":
        return Verdict(Outcome.UNSUPPORTED, phase, failure.message)
    if failure.type in _BEFORE_THE_CASE:
        return Verdict(Outcome.ERROR, phase, _one_line(message))
    if failure.type in _OOM_TYPES or OUT_OF_MEMORY.search(message):
        return Verdict(Outcome.OOM, phase, _one_line(message))
    device_bytes = failure.memory.device_bytes if failure.memory else None
    full = (
        device_total_bytes is not None
        and device_bytes is not None
        and device_total_bytes - device_bytes < _FULL_BELOW_BYTES
    )
    if full and _OOM_IF_FULL.search(message):
        return Verdict(Outcome.OOM, phase, _one_line(message))
    return Verdict(Outcome.ERROR, phase, _one_line(message))


def _judge_result(told: Told, device_total_bytes: int | None) -> Verdict:
    memory = told.memory
    if device_total_bytes is not None and memory is not None and memory.peak_reserved_bytes > device_total_bytes:
        return Verdict(Outcome.DEGRADED, Phase.DONE, "more memory than the card has: the driver spilled to the host")
    return Verdict(Outcome.FITS, Phase.DONE, None)


def _death(ending: Ending, had_result: bool) -> str:
    after = " after its result" if had_result else ""
    said = _last_line(ending.log_tail)
    tail = f"; last words: {said}" if said else ""
    if ending.signal is not None:
        name = signal.Signals(ending.signal).name
        hint = " (from outside: the kernel does this when the host runs out of memory)" if name == "SIGKILL" else ""
        return f"died{after} of {name}{hint}{tail}"
    if ending.exit_code == 0:
        unread = f"; a line of it was not understood ({_one_line(ending.unread, 200)})" if ending.unread else ""
        return f"ended without a result{unread}{tail}"
    return f"exit code {ending.exit_code}{after or ('' if tail else ' without a word')}{tail}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _one_line(lines[-1]) if lines else ""


def _one_line(text: str, limit: int = 500) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
