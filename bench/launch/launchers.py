"""Which launcher a card's cases get, and one for all of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bench.core.case import NATIVE, Case
from bench.core.device import SIMULATED, DeviceSpec
from bench.core.extras import without_engine
from bench.engines.registry import engine_of
from bench.launch.environment import child_environment
from bench.launch.fork_server import ForkServer, can_fork
from bench.launch.fresh_interpreter import FreshInterpreter
from bench.launch.launcher import Launcher
from bench.launch.versions import installed_version


def make_launcher(device_kind: str, engine: str, uuids: Sequence[str] = (), allocator: str = NATIVE) -> Launcher:
    """The fastest launcher that isolates an engine's cases here; its children see the real GPUs of `uuids` alone.

    Raises `MissingExtra` where the engine is not installed.
    """
    if installed_version(engine) is None:
        raise without_engine(engine)
    environment = child_environment(device_kind, uuids, allocator)
    return ForkServer(environment, device_kind, engine) if can_fork() else FreshInterpreter(environment)


class Launchers:
    """For each engine and allocator one launcher a set of real GPUs, and one for simulated cards, made when needed."""

    def __init__(self) -> None:
        self._launchers: dict[tuple[str, tuple[str, ...], str], Launcher] = {}
        self._lock = threading.Lock()

    def simulated(self, engine: str) -> Launcher:
        """The engine's launcher for simulated cards, with its own allocator."""
        return self._launcher(SIMULATED, engine, (), engine_of(engine).allocator)

    def of(self, case: Case) -> Launcher:
        """The launcher for a case, whose devices are of one kind."""
        return self._launcher(case.device.kind, case.engine, uuids_of(case.devices), case.allocator)

    def close(self) -> None:
        """Ends those that were made."""
        for launcher in self._launchers.values():
            launcher.close()

    def kill(self) -> None:
        """Ends those that were made at once, with all that they run."""
        for launcher in list(self._launchers.values()):
            launcher.kill()

    def _launcher(self, kind: str, engine: str, uuids: tuple[str, ...], allocator: str) -> Launcher:
        key = engine, uuids, allocator
        with self._lock:
            if key not in self._launchers:
                self._launchers[key] = make_launcher(kind, engine, uuids, allocator)
            return self._launchers[key]


def uuids_of(devices: Sequence[DeviceSpec]) -> tuple[str, ...]:
    """Which real GPUs `devices` are; simulated ones have no such number."""
    return tuple(device.uuid for device in devices if device.uuid is not None)
