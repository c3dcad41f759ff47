"""What is asked of a model on a card beside its settings: the engine, how many sequences, and the scenario."""

from __future__ import annotations

from collections.abc import Iterable

from bench.core.case import DEFAULT_ENGINE, DEFAULT_SCENARIO
from bench.core.identity import known
from bench.engines.registry import engine_of


class Questions:
    """What tells questions apart, which are a batch size, an engine and a scenario each: the engine where there are
    several.
    """

    def __init__(self, questions: Iterable[tuple[int | None, str | None, str | None]]) -> None:
        told = list(questions)
        self._several_engines = len({known(engine) or DEFAULT_ENGINE for _, engine, _ in told}) > 1
        self._several_sizes = len({known(batch_size) for batch_size, _, _ in told}) > 1
        self._several_scenarios = len({known(scenario) or DEFAULT_SCENARIO for _, _, scenario in told}) > 1

    def words(self, batch_size: int | None, engine: str | None, scenario: str | None) -> str:
        """To stand after a model's name: ` with ENGINE (scenario generator, batch of 2)`; the usual needs no word."""
        with_engine = "".join(f" with {title}" for title in self._title(engine))
        named = known(scenario) or DEFAULT_SCENARIO
        unusual = [] if named == DEFAULT_SCENARIO else [f"scenario {named}"]
        unusual += [] if batch_size in (None, 1) else [f"batch of {batch_size}"]
        return with_engine + (f" ({', '.join(unusual)})" if unusual else "")

    def apart(self, batch_size: int | None, engine: str | None, scenario: str | None) -> list[str]:
        """What differs among them alone: `ENGINE`, `scenario generator`, `batch of 2`."""
        in_scenario = [f"scenario {known(scenario) or DEFAULT_SCENARIO}"] if self._several_scenarios else []
        return [*self._title(engine), *in_scenario, *([f"batch of {batch_size}"] if self._several_sizes else [])]

    def _title(self, engine: str | None) -> list[str]:
        return [engine_of(known(engine) or DEFAULT_ENGINE).title] if self._several_engines else []
