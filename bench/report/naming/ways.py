"""The ways to run a model that one picture shows, each with a shape of its own.

Colour is for bits per weight or for the cache; what else varies is told by the shape of a mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.core.identity import known
from bench.core.identity_columns import SettingColumns
from bench.report.naming.axes import OPTIONAL, Axes

# Pictures have a panel for each attention.
_KEYS = [name for name in OPTIONAL if name != "attention_requested"]


@dataclass(frozen=True)
class Way:
    """How it is loaded, and the `others` of its keys that tell it apart: `head_bits 8, batch_size 2`."""

    lazy: bool
    others: str

    @property
    def label(self) -> str:
        """For a legend."""
        return ", ".join(filter(None, ["lazy + load_autosplit" if self.lazy else "load", self.others]))


class Ways:
    """The ways among `lines`, those of all panels of one picture: `all` of them, `load` before lazy."""

    def __init__(self, lines: Iterable[SettingColumns]) -> None:
        lines = list(lines)
        self._axes = Axes(lines, _KEYS)
        ordered = sorted(lines, key=self._place)
        self.all = list(dict.fromkeys(self.of(line) for line in ordered))

    def of(self, line: SettingColumns) -> Way:
        """The way of a line."""
        return Way(line["lazy"], ", ".join(self._axes.others(line)))

    @property
    def are_named(self) -> bool:
        """Whether more than loading tells them apart."""
        return bool(self._axes.varying)

    def _place(self, line: SettingColumns) -> tuple[Any, ...]:
        values = [known(line.get(name)) for name in self._axes.varying]
        return line["lazy"], *((value is not None, value) for value in values)


def shapes_for(ways: Sequence[Way], shapes: Sequence[str], lazy_shape: str) -> list[str]:
    """A shape for each of `ways`, `lazy_shape` for the first that is lazy; from the beginning again where there are
    more ways than `shapes`.
    """
    first_lazy = next((i for i, way in enumerate(ways) if way.lazy), None)
    given = iter(range(len(ways)))
    return [lazy_shape if i == first_lazy else shapes[next(given) % len(shapes)] for i in range(len(ways))]
