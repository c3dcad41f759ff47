"""What a value of the key `load` that names a server asks of the other keys."""

from __future__ import annotations

from typing import Any

from bench.config.settings import Load, Settings
from bench.core.case import DEFAULT_SCENARIO, MAX_ATTENTION_SIZE, PAGE
from bench.core.errors import BadInput
from bench.engines.base import EngineSpec, Server

_OWN = (Load.single, Load.autosplit)


def server_of(settings: Settings, engine: EngineSpec) -> Server | None:
    """The server that is loaded as; None for the engine's own ways.

    Raises `BadInput` for what that server does not do.
    """
    if settings.load is None or settings.load in _OWN:
        return None
    name = f"load={settings.load.name}"
    server = engine.servers.get(settings.load.name)
    if server is None:
        raise BadInput(f"{name}: {engine.title} is not loaded so here; allowed are {', '.join(x.name for x in _OWN)}")
    if settings.scenario.name == DEFAULT_SCENARIO:
        raise BadInput(f"{name}: {server.title} serves by the engine's generator; give scenario=generator with it")
    chunk = settings.max_input_len
    if chunk % PAGE:
        raise BadInput(
            f"{name} max_input_len={chunk}: {server.title} makes chunks of whole pages of {PAGE} tokens; give "
            f"{-(-chunk // PAGE) * PAGE}"
        )
    if settings.max_attention_size not in (MAX_ATTENTION_SIZE, chunk**2):
        raise BadInput(
            f"{name} max_attention_size={settings.max_attention_size}: {server.title} sets it to max_input_len squared "
            f"({chunk**2}); leave it out"
        )
    return server


def keys_of(settings: Settings, server: Server | None) -> dict[str, Any]:
    """The fields of a `Case` that a server sets."""
    if server is None or settings.load is None:
        return {}
    return {"load_as": settings.load.name, "max_attention_size": settings.max_input_len**2}
