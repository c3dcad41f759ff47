"""All that the worker asks of an engine: to be run, to be simulated and to be recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from bench.core.case import Case
from bench.engines.reading import Reading
from bench.trace.passes import Pass, Setup
from bench.trace.recording import DraftDepth
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Engine, Session
from bench.worker.simulated.engine import SimulatedEngine


class Beginning(NamedTuple):
    """A card of several that begins with the module number `module` of the layer `layer`, in both of a shallow `case`.

    `first_layer` is the first layer that is on it as a whole, and `num_layers` how many are. Where there is no such
    layer, the number is that among the modules after all of them.
    """

    case: Case
    layer: int
    module: int
    first_layer: int
    num_layers: int

    @property
    def depth(self) -> int:
        """The number of layers of the shallow model."""
        return self.first_layer + self.num_layers


class Division(NamedTuple):
    """A way to divide every layer among the cards of a case: one of several, in which no part is as in another."""

    number: int


class Recordable(NamedTuple):
    """How a case is recorded.

    `case` is the same with as few layers as show them all: `num_layers`, which repeat every `period`, of the `depth`
    that the model has. `setup` decides which passes there are, `reading` is what the engine made of config.json.
    On several cards `beginnings` are those that a card other than the first may have; where every layer is divided
    among them, `divisions` are the ways in which it is recorded. With `apart`
    weights are not known by their tensors: the beginning of a case, up to the first prompt of any length, is recorded
    apart with all layers of the checkpoint, and chunks of such prompts among the extra passes alone. `draft` says
    of the draft model in `case`, if there is one, how deep it is there.
    """

    case: Case
    num_layers: int
    period: int
    depth: int
    setup: Setup
    reading: Reading
    beginnings: tuple[Beginning, ...] = ()
    divisions: tuple[Division, ...] = ()
    apart: bool = False
    draft: DraftDepth | None = None


class Listener(Protocol):
    """Who is told what the engine is about.

    `layer` is the decoder layer at work, -1 before the first, and `module` the number of the module in it; after the
    last layer modules are counted, too. `of_draft` says whether they are those of a draft model.
    """

    layer: int
    module: int
    of_draft: bool

    def enter(self, q_len: int, k_len: int) -> None:
        """A pass of `q_len` tokens begins, after which the cache holds `k_len`."""

    def pause(self) -> None:
        """What is asked for and given back until the next pass begins belongs to none."""

    def keeps_free(self, reserve_bytes: int) -> None:
        """PyTorch is kept to what is free now without so much; 0 lifts that."""

    def tries(self) -> None:
        """A part of the model that was loaded is tried: what it needs beside what is there counts from now on."""

    def requires(self, margin_bytes: int) -> None:
        """The model does not fit unless the most that a part has needed is left, with a margin."""

    def scratch(self, lines: list[tuple[int, int]], of_draft: bool = False) -> None:
        """The model wants the most of a + b · max_input_len bytes of scratch, over all pairs (a, b)."""

    def divided(self, parts: tuple[tuple[int, ...], ...]) -> None:
        """Every layer is divided among the cards: of each part of the layers, what each card has of it."""

    def split_sizes(self, tell: Callable[[], dict[str, Any]]) -> None:
        """`tell` says, in plain values, what the engine counts of a model when it is told how much goes on which card.

        It may raise `NoPrediction`, and is called where there are several cards.
        """


class RecordedEngine(Protocol):
    """An engine of which it can be written down what it allocates in which pass and which layer."""

    def recordable(self, case: Case, machine: Machine) -> Recordable:
        """Raises `Unsupported`."""

    def marked(self, listener: Listener, how: Beginning | Division | None = None) -> AbstractContextManager[None]:
        """While it lasts, the engine's models, passes and layers tell `listener` that they begin.

        With a beginning, the second card begins with that module; with a division, layers are divided so.
        """

    def forward(self, session: Session, each: Pass) -> None:
        """One pass more of a session whose cache is there, as the engine makes it in a case."""


class WorkerEngine(Engine, SimulatedEngine, RecordedEngine, Protocol):
    """An engine as the worker knows it."""
