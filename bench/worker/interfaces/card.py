"""The interfaces behind which real cards and simulated ones differ: a machine, and each card of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.core.case import Case
from bench.core.messages import CardFacts, Memory
from bench.scenarios.base import Pace


class Card(Protocol):
    """What the scenario asks of each card."""

    def facts(self) -> CardFacts:
        """What is known of the card and its software by now."""

    def memory(self) -> Memory:
        """Bytes now and at peak, after all work on the card is finished."""

    def parts_at_peak(self, resident: Callable[[], dict[str, Iterable[Any]]]) -> dict[str, int | None]:
        """The bytes of each part that were alive when allocated bytes were at their highest.

        `resident` gives the tensors that live as long as the model, on all cards, by part.
        """


class Machine(Protocol):
    """What the scenario asks of the cards under it together."""

    # How much is decoded, and how often it is timed.
    pace: Pace

    @property
    def cards(self) -> Sequence[Card]:
        """Its cards, in the order in which CUDA counts them."""

    def import_engine(self) -> None:
        """Imports the engine. Raises `EngineBroken` where a package here stands in the way."""

    def supports_flash_attention(self) -> bool:
        """flash-attn 2 runs on Ampere (compute capability 8.0) or newer: whether all cards are that."""

    def model_dir(self, case: Case, layouts: Path) -> Path:
        """The directory that the engine loads; layouts made for the purpose go below `layouts`."""

    def time(self, work: Callable[[], None], repeats: int) -> list[float]:
        """Does the work and returns its seconds, once for each repeat; none where time means nothing."""

    def peak_host_bytes(self) -> int | None:
        """The host memory that this process held at its highest; None where stand-ins hold other memory."""

    def notes(self) -> list[str]:
        """What was assumed or stood in the way, for the row."""
