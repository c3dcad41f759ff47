"""What a configuration is read for: the engine, the cards and the model, which it does not say all by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.config.compose import combinations, validate_all
from bench.config.devices import resolve_devices
from bench.config.lengths import Lengths, lengths_of_model
from bench.config.models import engine_of_weights, resolve_model
from bench.config.settings import AUTO, Settings
from bench.core.case import PAGE
from bench.core.errors import BadInput
from bench.engines.base import EngineSpec, Frontend
from bench.engines.registry import engine_of, engines
from bench.setups.setup import is_typed


@dataclass(frozen=True)
class Surroundings:
    """The engine that runs it, on how many cards, and what is known of the lengths of the model."""

    engine: EngineSpec
    cards: int
    lengths: Lengths

    @property
    def native_tokens(self) -> int | None:
        """The model's own limit; None where nothing tells it."""
        return self.lengths.limit


def surroundings(source: str, model: Sequence[str], engine: str | None, typed: Sequence[str]) -> Surroundings:
    """Of `source` and what was `typed` beside it; `model` are overrides that name its model where none is typed.

    `engine` is that of the configuration; None where that goes by the weights. Raises `BadInput`, also where what is
    typed is of several engines, models or numbers of cards, as one configuration is read for one of each.
    """
    settings = validate_all(combinations([*model, *typed]))
    names = {_engine(each, engine) for each in settings}
    cards = {len(resolve_devices(each.device)) for each in settings}
    for key, found in (("engine", names), ("device", cards)):
        if len(found) > 1:
            told = "numbers of cards" if key == "device" else "engines"
            raise BadInput(f"{source}: what is typed beside it has several {told}; it is read for one: give one {key}")
    (name,) = names
    spec = engine_of(name)
    first = settings[0]
    lengths = lengths_of_model(resolve_model(first.model, first.bpw, name), name)
    return Surroundings(spec, cards.pop(), lengths)


def _engine(settings: Settings, said: str | None) -> str:
    asked = settings.engine.name
    if asked != AUTO:
        return asked
    return said or engine_of_weights(settings.model, settings.bpw)


def model_of(source: str, key: str, folder: Path | None, typed: Sequence[str]) -> list[str]:
    """The override that names the model in `folder`; none where one is typed. Raises `BadInput` where it is nowhere."""
    if is_typed("model", typed):
        return []
    other = "name the model beside it: model=NAME bpw=N (`vram-bench list models`), or model.path=DIR"
    if folder is None:
        raise BadInput(f"{source}: {key} is not there, and that is the model; {other}")
    if not (folder / "config.json").is_file():
        raise BadInput(f"{source}: {key} is {folder}, and there is no model here; {other}")
    return ["model=local", f"model.path={folder.absolute()}"]


def frontends(option: str) -> dict[str, tuple[EngineSpec, Frontend]]:
    """The engines that `option` knows, by each name that it has for them."""
    return {
        name: (engine, engine.frontends[option])
        for engine in engines()
        if option in engine.frontends
        for name in engine.frontends[option].names
    }


def in_pages(tokens: int) -> int:
    """The same in whole pages, no fewer."""
    return -(-tokens // PAGE) * PAGE
