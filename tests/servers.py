"""Fork servers that outlive the command that started them, for commands that are called in the tests' own process.

To import the engine takes longer than most of what is asked of it, and each command would start a server of its own.
How servers start and end is tested where they are not kept: in tests/launch, and by every command that
is called in a process of its own.
"""

from __future__ import annotations

import json

from bench.launch.fork_server import ForkServer


class KeptServer(ForkServer):
    """Serves the next command, too."""

    def close(self) -> None: ...

    def end(self) -> None:
        super().close()


class KeptServers:
    """Stands where `ForkServer` does: one server for each environment, kind of device and engine."""

    def __init__(self) -> None:
        self._servers: dict[str, KeptServer] = {}

    def __call__(self, environment: dict[str, str], device_kind: str, engine: str) -> KeptServer:
        # The cache is the parent's: a worker writes where it is told.
        mine = {name: value for name, value in environment.items() if name != "XDG_CACHE_HOME"}
        key = json.dumps([mine, device_kind, engine], sort_keys=True)
        if key not in self._servers:
            self._servers[key] = KeptServer(environment, device_kind, engine)
        return self._servers[key]

    def end(self) -> None:
        for server in self._servers.values():
            server.end()
