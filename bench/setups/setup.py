"""A configuration of another program, as far as it was understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.core.errors import BadInput
from bench.engines.base import EngineSpec, Frontend

# Keys of which one is enough.
_SAME = (
    ("model", "model.path", "model.repo"),
    ("draft.model", "draft.model.path", "draft.model.repo"),
    ("split", "gpu_split"),
    ("load", "lazy"),
)


@dataclass(frozen=True)
class Setup:
    """What was read of `source`, a configuration of `frontend` for `engine`, and what was made of it.

    `read` has what it says, and the overrides that this became; `left` what is not taken into account, and why;
    `unknown` what nobody knows of it; `no_memory` what changes no memory of a card; `typed` are the overrides beside
    it. `key_of` says what the program calls the keys that may be raised.
    """

    source: str
    engine: EngineSpec
    frontend: Frontend
    typed: Sequence[str]
    key_of: Mapping[str, str]
    read: dict[str, list[str]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    no_memory: list[str] = field(default_factory=list)

    def take(self, said: str, *overrides: str) -> None:
        """`said` becomes `overrides`, but for keys that were typed beside it."""
        for override in overrides:
            key = override.partition("=")[0]
            if is_typed(key, self.typed):
                self.left[said] = f"{key} was typed beside it"
            else:
                self.read.setdefault(said, []).append(override)

    def leave(self, said: str, why: str) -> None:
        """`said` is not taken into account."""
        self.left[said] = why

    def cache_of(self, told: str, said: str) -> str:
        """The cache that a word stands for; `told` is where it stands. Raises `BadInput` for one that is refused."""
        frontend = self.frontend
        if (cache := frontend.cache_of(said)) is not None:
            return cache
        if frontend.other_cache is None:
            allowed = ", ".join(frontend.caches)
            raise BadInput(f"{self.source}: {told}: allowed with {self.engine.title} are {allowed}")
        self.leave(told, f"with {self.engine.title} it is none, and {frontend.other_cache} is taken")
        return frontend.other_cache

    @property
    def overrides(self) -> list[str]:
        """The whole command line that it is, with what was typed."""
        return [*(override for overrides in self.read.values() for override in overrides), *self.typed]

    def to_json(self) -> dict[str, Any]:
        """All of it in what JSON has."""
        return {
            "program": self.frontend.title,
            "program_version": self.frontend.version,
            "source": self.source,
            "engine": self.engine.name,
            "read": self.read,
            "not_taken_into_account": self.left,
            "unknown": self.unknown,
            "no_memory": self.no_memory,
            "overrides": self.overrides,
        }


def is_typed(key: str, typed: Sequence[str]) -> bool:
    """Whether `key`, or one that says the same, is among the overrides that were `typed`."""
    same = next((keys for keys in _SAME if key in keys), (key,))
    return any(text.lstrip("+").partition("=")[0] in same for text in typed)
