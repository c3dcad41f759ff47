"""What a card's memory goes to, as a bar drawn to the card's size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.style import Style
from rich.text import Text

# Each kind of memory, in the order of the bar: how it is drawn without colour, and Okabe and Ito's colour for it.
WEIGHTS, CACHE, REST, CONTEXT, HELD = "weights", "cache", "rest", "context", "held"
_LOOKS = {
    WEIGHTS: ("█", "#0072B2"),
    CACHE: ("▓", "#E69F00"),
    REST: ("▒", "#009E73"),
    CONTEXT: ("■", "#CC79A7"),
    HELD: ("░", "#999999"),
}
_LIMIT, _BEYOND, _FREE = ("│", "bold"), ("»", "bold"), (" ", "")
_LABELS = {
    WEIGHTS: "weights",
    CACHE: "cache",
    REST: "rest",
    CONTEXT: "CUDA context",
    HELD: "kept, unused",
}
_MOST_BEYOND = 1.5  # cards; what is larger is cut off
_MIN_WIDTH, _MAX_WIDTH = 8, 49


@dataclass(frozen=True)
class Scale:
    """A bar's room: `shown_bytes` of memory, of which the card has `limit_bytes`."""

    limit_bytes: int
    shown_bytes: int


def scale_for(limit_bytes: int, largest_bytes: int) -> Scale:
    """Room for the card, and for what goes beyond it as far as that can be shown."""
    return Scale(limit_bytes, max(limit_bytes, min(largest_bytes, int(_MOST_BEYOND * limit_bytes))))


def segments(parts: Mapping[str, int], device_bytes: int) -> dict[str, int]:
    """The bytes of each kind: of `parts` (`weights_bytes`, ...) in use, up to what the device holds in all."""
    # A draft model's weights and cache are drawn with the model's.
    known = {
        kind: parts.get(f"{kind}_bytes", 0) + parts.get(f"draft_{kind}_bytes", 0) for kind in (WEIGHTS, CACHE, CONTEXT)
    }
    used = sum(parts.values())
    return {
        WEIGHTS: known[WEIGHTS],
        CACHE: known[CACHE],
        REST: used - sum(known.values()),
        CONTEXT: known[CONTEXT],
        HELD: max(0, device_bytes - used),
    }


def draw(sizes: Mapping[str, int], scale: Scale, width: int) -> Text:
    """The bar in `width` columns, the card's limit one of them; empty where there is no room for one."""
    room = width - 1
    if room < 2:
        return Text()
    card = room
    if scale.shown_bytes > scale.limit_bytes:
        card = min(room - 1, max(1, round(room * scale.limit_bytes / scale.shown_bytes)))
    per_column = scale.limit_bytes / card
    total = sum(sizes.values())
    columns = [_look(sizes, min((column + 0.5) * per_column, scale.shown_bytes)) for column in range(room)]
    if total > scale.limit_bytes and columns[card:]:
        columns[card] = columns[card] if columns[card] != _FREE else _look(sizes, total - 1)
        if total > scale.shown_bytes:
            columns[-1] = _BEYOND
    columns.insert(card, _LIMIT)
    bar = Text(no_wrap=True)
    for (glyph, style), run in groupby(columns):
        bar.append(glyph * len(list(run)), Style.parse(style))
    return bar


def legend() -> Text:
    """What each block stands for."""
    text = Text()
    for kind, (glyph, colour) in _LOOKS.items():
        text.append(f"{glyph} ", colour).append(f"{_LABELS[kind]}  ")
    return text.append(*_LIMIT).append(" limit  ").append(*_BEYOND).append(" goes on")


@dataclass(frozen=True)
class PartsBar:
    """A bar as wide as its table lets it be."""

    sizes: Mapping[str, int]
    scale: Scale

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(_MIN_WIDTH, _MAX_WIDTH)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield draw(self.sizes, self.scale, options.max_width)


def _look(sizes: Mapping[str, int], place: float) -> tuple[str, str]:
    """How the memory at `place` bytes is drawn."""
    for kind, look in _LOOKS.items():
        place -= sizes[kind]
        if place < 0:
            return look
    return _FREE
