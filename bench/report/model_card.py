"""A table for a model card: what each quantisation takes, and how far it goes on cards of each size. Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.core.caches import finest_first
from bench.report.text.markdown import list_item, markdown_table, paragraph, plain_text
from bench.report.text.units import gib, tokens

_CERTIFIED = " ✓"
_NOTHING, _UNKNOWN = "–", "?"


@dataclass(frozen=True)
class Figure:
    """A number, and whether a run has shown it; None does not fit, or is not known (`is_unknown`).

    `is_end` says that all fits, to the end of the search.
    """

    value: int | None
    is_certified: bool = False
    is_unknown: bool = False
    is_end: bool = False


@dataclass
class Quantisation:
    """A line: figures of VRAM in bytes by cache and length, and of the longest context in tokens by cache and card."""

    label: str
    bpw: float
    head_bits: float | None
    file_bytes: int | None
    vram: dict[tuple[str, int], Figure] = field(default_factory=dict)
    longest: dict[tuple[str, str], Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelCard:
    """Lines, lengths in tokens, and the cards by what their columns are called; `notes` say how it was found."""

    lines: Sequence[Quantisation]
    lengths: Sequence[int]
    native_tokens: int | None
    cards: Mapping[str, str]
    commands: Sequence[str]
    notes: Sequence[str]

    @property
    def markdown(self) -> str:
        """The whole text."""
        paragraphs = ["**VRAM in GiB, by context length**", *self._vram(), "**Longest context that fits, in tokens**"]
        paragraphs += [*self._longest(), "\n".join(map(list_item, self.notes))]
        commands = "\n".join(self.commands)
        paragraphs += [paragraph("The same, certified by runs:"), f"```sh\n{commands}\n```"]
        return "\n\n".join(paragraphs) + "\n"

    @property
    def _caches(self) -> list[str]:
        return finest_first(cache for line in self.lines for cache, _ in line.longest)

    def _vram(self) -> list[str]:
        titles = [_title(length, self.native_tokens) for length in self.lengths]
        header = ["Branch", "Bits", "Head bits", "Files, GiB", "Cache", *titles]
        rows = []
        for line in self.lines:
            for number, cache in enumerate(self._caches):
                told = [plain_text(line.label), f"{line.bpw:g}", _bits(line.head_bits), gib(line.file_bytes, 2)]
                cells = [_cell(line.vram.get((cache, length)), _gib) for length in self.lengths]
                rows.append([*(told if not number else [""] * len(told)), cache, *cells])
        return ["\n".join(markdown_table(header, rows, ("Branch", "Cache")))]

    def _longest(self) -> list[str]:
        header = ["Branch", "Cache", *self.cards.values()]
        rows = []
        for line in self.lines:
            for number, cache in enumerate(self._caches):
                cells = [_cell(line.longest.get((cache, card)), tokens) for card in self.cards]
                rows.append(["" if number else plain_text(line.label), cache, *cells])
        return ["\n".join(markdown_table(header, rows, ("Branch", "Cache")))]


def _cell(figure: Figure | None, words: object) -> str:
    if figure is None or figure.is_unknown:
        return _UNKNOWN
    if figure.value is None:
        return _NOTHING + (_CERTIFIED if figure.is_certified else "")
    told = words(figure.value) if callable(words) else str(figure.value)
    return f"{told}{' (all)' if figure.is_end else ''}{_CERTIFIED if figure.is_certified else ''}"


def _gib(size_bytes: float | None) -> str:
    return gib(size_bytes, 2)


def _bits(bits: float | None) -> str:
    return _NOTHING if bits is None else f"{bits:g}"


def _title(length: int, native_tokens: int | None) -> str:
    told = f"{length // 1024}k" if length % 1024 == 0 else tokens(length)
    return f"{told} (native)" if length == native_tokens else told
