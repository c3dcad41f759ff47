"""What an engine made of a config.json: read off the engine by a worker, and judged here without the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Rope:
    """The rotary positions that the engine computes.

    `base` is that of all layers, or of those without a window where `window_base` is told. `scaling` is `default`,
    `linear`, `yarn`, `longrope` or `llama3`, and `numbers` are those it was given, by their names in config.json.
    `rotary_factor` is the part of each head that is rotated.
    """

    base: float
    window_base: float | None
    scaling: str
    numbers: dict[str, float]
    rotary_factor: float


@dataclass(frozen=True)
class Reading:
    """`windows` are the tokens that each layer looks back, 0 for all; `rope` is None for models without rotary
    positions; `attention` is the back end that runs; `experts` are chosen from where there is more than one.
    """

    attention: str
    head_dim: int
    experts: int
    windows: tuple[int, ...]
    rope: Rope | None

    def to_plain(self) -> dict[str, Any]:
        """The reading in what JSON has."""
        return asdict(self)

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Reading:
        """Reads what `to_plain` has made."""
        rope = plain["rope"]
        fields = {**plain, "windows": tuple(plain["windows"]), "rope": None if rope is None else Rope(**rope)}
        return Reading(**fields)


def scopes(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Where the keys of the language model may stand in a config.json (parsed), in the engine's order."""
    yield config
    text = config.get("text_config")
    if isinstance(text, dict):
        yield text


def find(config: Mapping[str, Any], *keys: str) -> Any:
    """The first value that is not null, in either scope."""
    for key in keys:
        for scope in scopes(config):
            if (value := scope.get(key)) is not None:
                return value
    return None


def find_number(config: Mapping[str, Any], key: str) -> float | None:
    """The same for a number; None for anything else."""
    return as_number(find(config, key))


def as_number(value: Any) -> float | None:
    """`value` as a float; None where it is no number (true and false are none)."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
