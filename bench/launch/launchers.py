"""Which launcher a card's cases get, and one for all of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bench.core.case import Case
from bench.core.device import SIMULATED, DeviceSpec
from bench.launch.environment import child_environment
from bench.launch.fork_server import ForkServer, can_fork
from bench.launch.fresh_interpreter import FreshInterpreter
from bench.launch.launcher import Launcher


def make_launcher(device_kind: str, engine: str, uuids: Sequence[str] = ()) -> Launcher:
    """The fastest launcher that isolates an engine's cases here; its children see the real GPUs of `uuids` alone."""
    environment = child_environment(device_kind, uuids)
    return ForkServer(environment, device_kind, engine) if can_fork() else FreshInterpreter(environment)


class Launchers:
    """For each engine one launcher a set of real GPUs, and one for simulated cards; made when it is first needed."""

    def __init__(self) -> None:
        self._launchers: dict[tuple[str, tuple[str, ...]], Launcher] = {}
        self._lock = threading.Lock()

    def simulated(self, engine: str) -> Launcher:
        """The engine's launcher for simulated cards."""
        return self._launcher(SIMULATED, engine, ())

    def of(self, case: Case) -> Launcher:
        """The launcher for a case, whose devices are of one kind."""
        return self._launcher(case.device.kind, case.engine, uuids_of(case.devices))

    def close(self) -> None:
        """Ends those that were made."""
        for launcher in self._launchers.values():
            launcher.close()

    def _launcher(self, kind: str, engine: str, uuids: tuple[str, ...]) -> Launcher:
        with self._lock:
            if (engine, uuids) not in self._launchers:
                self._launchers[engine, uuids] = make_launcher(kind, engine, uuids)
            return self._launchers[engine, uuids]


def uuids_of(devices: Sequence[DeviceSpec]) -> tuple[str, ...]:
    """Which real GPUs `devices` are; simulated ones have no such number."""
    return tuple(device.uuid for device in devices if device.uuid is not None)
