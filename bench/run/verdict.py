"""The verdict on a case, from how its child ended.

The parent overrules the child: "done" followed by exit code 3 is a crash.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from bench.core.messages import Failure
from bench.core.outcome import Outcome, Phase
from bench.core.printable import printable
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
# Of the host, and not of the engine; the worker's temporary files are all that it writes.
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|\(os error 28\)")
_FULL_BELOW_BYTES = 256 << 20


@dataclass(frozen=True)
class Verdict:
    """`error` is one line for the row; None where all went well."""

    outcome: Outcome
    phase: Phase
    error: str | None


def judge(
    ending: Ending,
    timeout_s: float,
    totals_bytes: Sequence[int | None] = (),
    limits_bytes: Sequence[int | None] = (),
) -> Verdict:
    """The verdict on a child that ended as `ending` says.

    `totals_bytes` are of each card, None where unknown; `limits_bytes` of the smaller one inside it, None without one.
    """
    told = Told.by(ending.messages)
    phase = told.phase
    if told.failure is not None:
        return _judge_failure(told.failure, phase, _sizes(told, totals_bytes, limits_bytes))
    if ending.timed_out:
        far = f", {ending.progress} done" if ending.progress else ""
        return Verdict(Outcome.TIMEOUT, phase, f"still in phase {phase} after {ending.wall_s or timeout_s:.4g} s{far}")
    if told.result is not None and ending.exit_code == 0:
        return _judge_result(told, _sizes(told, totals_bytes, limits_bytes))
    if told.result is None and OUT_OF_MEMORY.search(ending.log_tail):
        return Verdict(Outcome.OOM, phase, _last_line(ending.log_tail))
    return Verdict(Outcome.CRASH, phase, _death(ending, told.result is not None))


def _sizes(told: Told, totals_bytes: Sequence[int | None], limits_bytes: Sequence[int | None]) -> list[int | None]:
    """The bytes of each card, or of the smaller one inside it; what CUDA told is preferred, as NVML lists more."""
    cards = told.cards()
    unknown = [None] * len(cards)
    sizes = []
    for card, listed, limit in zip(cards, [*totals_bytes, *unknown], [*limits_bytes, *unknown], strict=False):
        total = listed if card.facts.device_total_bytes is None else card.facts.device_total_bytes
        sizes.append(total if limit is None else min(total or limit, limit))
    return sizes


def _judge_failure(failure: Failure, phase: Phase, sizes_bytes: Sequence[int | None]) -> Verdict:
    message = f"{failure.type}: {failure.message}"
    if failure.type == "Unsupported":
        return Verdict(Outcome.UNSUPPORTED, phase, printable(failure.message))
    if _NO_SPACE.search(message):
        said = f"{message}; free some there, or where that is of temporary files name another folder as TMPDIR"
        return Verdict(Outcome.ERROR, phase, _one_line(said))
    if failure.type in _BEFORE_THE_CASE:
        return Verdict(Outcome.ERROR, phase, _one_line(message))
    if failure.type in _OOM_TYPES or OUT_OF_MEMORY.search(message):
        return Verdict(Outcome.OOM, phase, _one_line(message))
    held = [memory.device_bytes if memory else None for memory in (failure.memory, *failure.others)]
    full = any(
        total is not None and used is not None and total - used < _FULL_BELOW_BYTES
        for total, used in zip(sizes_bytes, held, strict=False)
    )
    if full and _OOM_IF_FULL.search(message):
        return Verdict(Outcome.OOM, phase, _one_line(message))
    return Verdict(Outcome.ERROR, phase, _one_line(message))


def _judge_result(told: Told, sizes_bytes: Sequence[int | None]) -> Verdict:
    for card, size in zip(told.cards(), sizes_bytes, strict=True):
        if size is not None and card.memory is not None and card.memory.peak_reserved_bytes > size:
            return Verdict(
                Outcome.DEGRADED, Phase.DONE, "more memory than the card has: the driver spilled to the host"
            )
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
    text = printable(" ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"
