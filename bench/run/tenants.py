"""Others on a real GPU: named before a sweep starts, and noticed where they come or go during a case."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench import nvml
from bench.core.device import DeviceSpec
from bench.core.errors import BadInput
from bench.run.locks import is_reserved

# Readings of a card on which nothing happens differ by less.
_SAME_BYTES = 32 << 20
# What a process held comes back a moment after its end; a driver that lost a process with an error takes longer.
_PATIENCE_S = 15.0
_POLL_S = 0.1
_MIB = 1 << 20


def require_alone(devices: Iterable[DeviceSpec]) -> None:
    """Raises `BadInput` where processes that are none of a sweep hold memory of a real GPU; it names them.

    What a driver does not tell is not known: on WSL, and in containers, there may be others all the same.
    """
    for device in devices:
        if device.uuid is None or is_reserved(device.uuid):  # by a sweep, whose turn ends
            continue
        reading = _read(device.uuid)
        if reading is not None and reading.processes:
            named = ", ".join(_named(process) for process in reading.processes)
            raise BadInput(
                f"GPU {device.index}: {named} on it, which take of what is measured; end them, or measure beside them: "
                "allow_foreign=true"
            )


def _named(process: nvml.Process) -> str:
    held = "unknown memory" if process.used_bytes is None else f"{process.used_bytes / _MIB:,.0f} MiB"
    return f"process {process.pid} ({held})"


@dataclass(frozen=True)
class Baseline:
    """What each of some GPUs held before a case; None where nobody tells."""

    uuids: Sequence[str]
    used_bytes: Sequence[int | None]

    @staticmethod
    def of(uuids: Sequence[str]) -> Baseline:
        """As it is now."""
        return Baseline(uuids, [_used_bytes(uuid) for uuid in uuids])

    def moved(self) -> list[str]:
        """Waits until each GPU holds what it held; a line for each that does not in time, of what it holds more."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            lines = [line for pair in zip(self.uuids, self.used_bytes, strict=True) if (line := _moved(*pair))]
            if not lines or time.monotonic() > deadline:
                return lines
            time.sleep(_POLL_S)


def _moved(uuid: str, before_bytes: int | None) -> str | None:
    now_bytes = _used_bytes(uuid)
    if before_bytes is None or now_bytes is None or abs(now_bytes - before_bytes) <= _SAME_BYTES:
        return None
    more = "more" if now_bytes > before_bytes else "less"
    return (
        f"{abs(now_bytes - before_bytes) / _MIB:,.0f} MiB {more} of {uuid} in use {_PATIENCE_S:g} s after the case "
        "than before it: others came or went meanwhile"
    )


def _used_bytes(uuid: str) -> int | None:
    reading = _read(uuid)
    return None if reading is None else reading.used_bytes


def _read(uuid: str) -> nvml.Reading | None:
    try:
        return nvml.read(uuid)
    except nvml.NoDriver:
        return None
