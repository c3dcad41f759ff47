"""How a model is run, in words: bits, cache, way of loading, and what else differs among all that is named together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bench.core.columns import SETTING, label, usual
from bench.core.identity import key_of, known
from bench.core.identity_columns import SettingColumns
from bench.report.naming.cards import texts_of

# What every line shows. The others are shown where they differ.
ALWAYS = ("bpw", "cache", "lazy")
OPTIONAL = tuple(name for name in SETTING if name not in ALWAYS)


def how(line: SettingColumns) -> str:
    """The two ways of loading, as columns name them."""
    return "lazy" if line["lazy"] else "load"


# What follows from the model, unless it was asked for: it is told only where nothing else tells two apart.
_AT_LAST = ("auto_up_to", "draft_fingerprint")
# Without one a generator does other work: beside a line that has one, those that have none are told.
_TOLD_IF_ANY = ("cache_size", "max_batch_size", "draft")


def telling(lines: Sequence[SettingColumns], optional: Sequence[str], always: Sequence[str] = ALWAYS) -> list[str]:
    """Those of `optional` that are needed to tell `lines` apart.

    None, as the head_bits of weights that are there, is no value: it is told only where nothing else tells two apart.
    It is one where a key asks for more (`_TOLD_IF_ANY`).
    """
    values = {name: {known(line.get(name)) for line in lines} for name in optional}
    told = {name: values[name] - (set() if name in _TOLD_IF_ANY else {None}) for name in optional}
    needed = [name for name in optional if len(told[name]) > 1 and name not in _AT_LAST]
    for name in optional:
        if len(values[name]) > 1 and name not in needed:
            without = {key_of(line, (*always, *needed)) for line in lines}
            if len({key_of(line, (*always, *needed, name)) for line in lines}) > len(without):
                needed.append(name)
    return [name for name in optional if name in needed]


# Settings of a generator: all that is shown together may have them in common, and its title tells them then.
_SERVED = (
    *("scenario", "batch_size", "cache_size", "max_batch_size"),
    *("draft", "draft_model", "draft_bpw", "draft_cache", "num_draft_tokens"),
)


def in_common(lines: Iterable[SettingColumns]) -> str:
    """What all `lines` have that are run in an unusual scenario: `, scenario generator, batch_size 4`; else nothing."""
    lines = list(lines)
    values = {name: {known(line.get(name)) for line in lines} for name in _SERVED}
    if not values["scenario"] - {None, usual("scenario")}:
        return ""
    told = {name: next(iter(found)) for name, found in values.items() if len(found) == 1}
    words = [f"{label(name)} {plain_number(value)}" for name, value in told.items() if value not in (None, usual(name))]
    return "".join(f", {each}" for each in words)


class Axes:
    """The settings of `lines`, which have the columns `ALWAYS` and some of `optional`.

    `beside` are columns that tell lines apart by themselves, in another place.
    """

    def __init__(
        self, lines: Iterable[SettingColumns], optional: Sequence[str] = OPTIONAL, beside: Sequence[str] = ()
    ) -> None:
        distinct = {key_of(line, (*ALWAYS, *optional, *beside)): line for line in lines}
        self.varying = telling(list(distinct.values()), optional, (*ALWAYS, *beside))
        self._bits = bits_of(line["bpw"] for line in distinct.values())

    def bits(self, line: SettingColumns) -> str:
        """`4.25`; with all digits where two would look the same."""
        return self._bits.get(line["bpw"]) or f"{line['bpw']:g}"

    def cells(self, line: SettingColumns) -> list[str]:
        """What varies, a cell each."""
        return ["–" if (value := known(line.get(name))) is None else plain_number(value) for name in self.varying]

    def others(self, line: SettingColumns) -> list[str]:
        """The same with the name of each: `head_bits 8`."""
        told = {name: known(line.get(name)) for name in self.varying}
        return [f"{label(name)} {plain_number(value)}" for name, value in told.items() if value is not None]

    def words(self, line: SettingColumns) -> str:
        """`4 bpw Q4 lazy head_bits 8`."""
        cache = [] if line.get("cache") is None else [str(line["cache"])]
        return " ".join([f"{self.bits(line)} bpw", *cache, how(line), *self.others(line)])


def bits_of(widths: Iterable[float]) -> dict[float, str]:
    """Bits per weight as text: `4.25`; with all digits where two would look the same."""
    return texts_of(widths, (lambda bpw: f"{bpw:g}", lambda bpw: str(bpw).removesuffix(".0")))


def plain_number(value: Any) -> str:
    """A whole number without the point that pandas gives it beside a null."""
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)
