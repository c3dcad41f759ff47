"""All that the worker asks of an engine: to be run, to be simulated and to be recorded."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from bench.core.case import Case
from bench.engines.reading import Reading
from bench.trace.passes import Pass, Setup
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Engine, Session
from bench.worker.simulated.engine import SimulatedEngine


class Recordable(NamedTuple):
    """How a case is recorded.

    `case` is the same with as few layers as show them all: `num_layers`, which repeat every `period`, of the `depth`
    that the model has. `setup` decides which passes there are, `reading` is what the engine made of config.json.
    """

    case: Case
    num_layers: int
    period: int
    depth: int
    setup: Setup
    reading: Reading


class Listener(Protocol):
    """Who is told what the engine is about. `layer` is the decoder layer at work, -1 before the first."""

    layer: int

    def enter(self, q_len: int, k_len: int) -> None:
        """A pass of `q_len` tokens begins, after which the cache holds `k_len`."""

    def scratch(self, lines: list[tuple[int, int]]) -> None:
        """The model wants the most of a + b · max_input_len bytes of scratch, over all pairs (a, b)."""


class RecordedEngine(Protocol):
    """An engine of which it can be written down what it allocates in which pass and which layer."""

    def recordable(self, case: Case, machine: Machine) -> Recordable:
        """Raises `Unsupported`."""

    def marked(self, listener: Listener) -> AbstractContextManager[None]:
        """While it lasts, the engine's models, passes and layers tell `listener` that they begin."""

    def forward(self, session: Session, each: Pass) -> None:
        """One pass more of a session whose cache is there, as the engine makes it in a case."""


class WorkerEngine(Engine, SimulatedEngine, RecordedEngine, Protocol):
    """An engine as the worker knows it."""
