"""What is asked of a model on a card beside its settings: engine, sequences, scenario, and whether it is to see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bench.core.case import DEFAULT_ENGINE, DEFAULT_SCENARIO
from bench.core.identity import known
from bench.engines.registry import engine_of


class Asked(NamedTuple):
    """One question; what is not known is the usual."""

    batch_size: int | None
    engine: str
    scenario: str
    vision: bool

    @staticmethod
    def of(row: Mapping[str, Any]) -> Asked:
        """That of a row, a setting, or whatever else has its columns."""
        return Asked(
            batch_size=known(row["batch_size"]),
            engine=known(row["engine"]) or DEFAULT_ENGINE,
            scenario=known(row["scenario"]) or DEFAULT_SCENARIO,
            vision=bool(known(row["vision"])),
        )


class Questions:
    """What tells questions apart: the engine where there are several."""

    def __init__(self, questions: Iterable[Asked]) -> None:
        told = list(questions)
        self._several_engines = len({asked.engine for asked in told}) > 1
        self._several_sizes = len({asked.batch_size for asked in told}) > 1
        self._several_scenarios = len({asked.scenario for asked in told}) > 1
        self._some_see = len({asked.vision for asked in told}) > 1

    def words(self, asked: Asked) -> str:
        """To stand after a model's name: ` with ENGINE (scenario generator, batch of 2)`; the usual needs no word."""
        with_engine = "".join(f" with {title}" for title in self._title(asked))
        unusual = [] if asked.scenario == DEFAULT_SCENARIO else [f"scenario {asked.scenario}"]
        unusual += [] if asked.batch_size in (None, 1) else [f"batch of {asked.batch_size}"]
        unusual += ["with its vision tower"] if asked.vision else []
        return with_engine + (f" ({', '.join(unusual)})" if unusual else "")

    def apart(self, asked: Asked) -> list[str]:
        """What differs among them alone: `ENGINE`, `scenario generator`, `batch of 2`."""
        in_scenario = [f"scenario {asked.scenario}"] if self._several_scenarios else []
        sizes = [f"batch of {asked.batch_size}"] if self._several_sizes else []
        sees = [f"{'with' if asked.vision else 'without'} its vision tower"] if self._some_see else []
        return [*self._title(asked), *in_scenario, *sizes, *sees]

    def _title(self, asked: Asked) -> list[str]:
        return [engine_of(asked.engine).title] if self._several_engines else []
