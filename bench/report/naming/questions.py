"""What is asked of a model on a card beside its settings: with which engine, and of how many sequences."""

from __future__ import annotations

from collections.abc import Iterable

from bench.core.case import DEFAULT_ENGINE
from bench.core.identity import known
from bench.engines.registry import engine_of


class Questions:
    """What tells questions apart, which are a batch size and an engine each: the engine where there are several."""

    def __init__(self, questions: Iterable[tuple[int | None, str | None]]) -> None:
        told = list(questions)
        self._several_engines = len({known(engine) or DEFAULT_ENGINE for _, engine in told}) > 1
        self._several_sizes = len({known(batch_size) for batch_size, _ in told}) > 1

    def words(self, batch_size: int | None, engine: str | None) -> str:
        """To stand after a model's name: ` with ENGINE (batch of 2)`; a single sequence needs no word."""
        with_engine = "".join(f" with {title}" for title in self._title(engine))
        return with_engine + ("" if batch_size in (None, 1) else f" (batch of {batch_size})")

    def apart(self, batch_size: int | None, engine: str | None) -> list[str]:
        """What differs among them alone: `ENGINE`, `batch of 2`."""
        return [*self._title(engine), *([f"batch of {batch_size}"] if self._several_sizes else [])]

    def _title(self, engine: str | None) -> list[str]:
        return [engine_of(known(engine) or DEFAULT_ENGINE).title] if self._several_engines else []
