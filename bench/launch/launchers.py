"""Which launcher a card's cases get, and one for all of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bench.core.case import DeviceSpec
from bench.launch.environment import child_environment
from bench.launch.fork_server import ForkServer, can_fork
from bench.launch.fresh_interpreter import FreshInterpreter
from bench.launch.launcher import Launcher


def make_launcher(device_kind: str, uuids: Sequence[str] = ()) -> Launcher:
    """The fastest launcher that isolates cases on this platform; its children see the real GPUs of `uuids` alone."""
    environment = child_environment(device_kind, uuids)
    return ForkServer(environment, device_kind) if can_fork() else FreshInterpreter(environment)


class Launchers:
    """One launcher for each set of real GPUs, and one for all simulated cards; each is made when it is first needed."""

    def __init__(self) -> None:
        self._launchers: dict[tuple[str, ...], Launcher] = {}
        self._lock = threading.Lock()

    def simulated(self) -> Launcher:
        """The launcher for simulated cards."""
        return self._launcher("simulated", ())

    def of(self, devices: Sequence[DeviceSpec]) -> Launcher:
        """The launcher for cases on `devices`, which are of one kind."""
        return self._launcher(devices[0].kind, uuids_of(devices))

    def close(self) -> None:
        """Ends those that were made."""
        for launcher in self._launchers.values():
            launcher.close()

    def _launcher(self, kind: str, uuids: tuple[str, ...]) -> Launcher:
        with self._lock:
            if uuids not in self._launchers:
                self._launchers[uuids] = make_launcher(kind, uuids)
            return self._launchers[uuids]


def uuids_of(devices: Sequence[DeviceSpec]) -> tuple[str, ...]:
    """Which real GPUs `devices` are; simulated ones have no such number."""
    return tuple(device.uuid for device in devices if device.uuid is not None)
