"""What the worker asks of an engine: a session with one model, and what can be read without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bench.core.case import Case
from bench.engines.reading import Reading
from bench.synth.layout import Layout
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.given import Given

Tell = Callable[[int, int], None]  # how many of how many are done


class Unsupported(Exception):
    """The engine, as installed, cannot run this case on any card of any size."""


class EngineBroken(Exception):
    """The engine cannot be imported. Says nothing of any case; the text says what to do."""


Shape = tuple[int, ...]


@dataclass(frozen=True)
class Misshapen:
    """A tensor that is of no use to the module that would load it. `expected` is None where it takes no such tensor."""

    tensor: str
    found: Shape
    expected: Shape | None


@dataclass(frozen=True)
class Faults:
    """What is wrong with a checkpoint.

    `missing` are names of what no safetensors file has, as the engine calls them; `NAME.*` for a whole layer.
    """

    missing: list[str]
    misshapen: list[Misshapen]


class Placed(NamedTuple):
    """What a card has of a model: `modules` by name, in order, and the keys and values of so many `layers`."""

    modules: list[str]
    layers: int


class Session(Protocol):
    """One model of an engine, for one case on one machine. The methods are called in this order.

    Those of a draft model are called where the case has one.
    """

    def open(self, directory: Path, draft: Path | None = None) -> Reading:
        """Reads the model in `directory` and decides how it is run; takes no memory. Raises `Unsupported`.

        The model that proposes tokens to it, if there is one, is in `draft`.
        """

    def build(self) -> None:
        """Makes the model's modules, without weights; and its cache, where that is filled as the weights are loaded.

        So with a draft model, too.
        """

    def load_draft(self, tell: Tell | None = None) -> None:
        """Puts the weights of the draft model on the cards, as those of the model; tells how many modules are there."""

    def make_draft_cache(self) -> None:
        """Makes the draft model's cache, as long as the model's, unless loading has made it."""

    def load_vision(self, tell: Tell | None = None) -> None:
        """Puts the vision tower on the first card, where the case asks for it; tells how many modules are there."""

    def load(self, tell: Tell | None = None) -> None:
        """Puts the weights on the cards; tells how many modules are there."""

    def make_cache(self) -> None:
        """Makes the cache, unless loading has made it."""

    def fill(self, tokens: int, tell: Tell | None = None) -> None:
        """Empties the cache and works off a prompt of `tokens` tokens a sequence; tells how many are in the cache."""

    def decode(self, start: int, tokens: int, tell: Tell | None = None) -> None:
        """Decodes `tokens` tokens, one after the other, from where the cache holds `start`; logits go to the host."""

    def try_a_chunk(self) -> None:
        """Forwards the longest chunk that the engine takes, from the beginning of the cache; makes no logits."""

    def serve(self) -> None:
        """Makes the engine's generator over the model and its cache."""

    def trim(self) -> None:
        """Collects garbage, and gives back what PyTorch holds and nothing uses."""

    def begin(self, jobs: int, tokens: int, new_tokens: int, tell: Tell | None = None) -> None:
        """Ends the jobs that run, and has the generator work on others until each has its first token.

        Each has a prompt of `tokens` tokens, in which no two are alike, and room for `new_tokens`; tells how many are
        in the cache.
        """

    def generate(self, tokens: int, tell: Tell | None = None) -> None:
        """Lets the generator run until each job has so many tokens more; those that have no room for more end."""

    def host_buffers_bytes(self) -> int | None:
        """What the engine's generator reserves in host memory for its buffers; None without a generator."""

    def given(self) -> Given | None:
        """What the engine's generator has given its jobs; None without a generator."""

    def resident_tensors(self) -> dict[str, Iterable[Any]]:
        """The tensors on all cards that live as long as the model: weights, cache, scratch, rope and vision.

        Of a draft model also draft_weights and draft_cache.
        """

    def placement(self) -> list[Placed]:
        """What is on each card; a module that several share is on each of them."""


class Engine(Protocol):
    """An engine, installed here."""

    def import_engine(self) -> list[str]:
        """Imports it; returns notes on what was switched off for that.

        Raises `EngineBroken` where a package here stands in the way.
        """

    def broken_packages(self) -> dict[str, str]:
        """What is installed beside the engine and cannot be imported, with the error of each in a line."""

    def session(self, case: Case, machine: Machine) -> Session:
        """Raises `Unsupported` for a config.json that the engine refuses."""

    def require_readable(self, config: dict[str, Any]) -> None:
        """Raises `Unsupported` for a config.json (parsed) that the engine refuses."""

    def lay_out(self, config: dict[str, Any], bpw: float, head_bits: int | None) -> Layout:
        """The checkpoint of `config` (a parsed config.json) at `bpw` bits per weight, in the engine's own format."""

    def layout_of(self, case: Case, layouts: Path) -> Path:
        """The model directory of `case` below `layouts`, without weights, written at the first call."""

    def faults(self, directory: Path, config: dict[str, Any]) -> Faults:
        """What is wrong with the checkpoint in `directory`, whose config.json is `config`. Raises `Unsupported`."""
