"""Ours over what was published, a point a figure, with the errors that others have published of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.published.compared import Compared, Section
from bench.published.peers import PEERS
from bench.report.plots.style import GREY, SHAPES, USUAL, explain, key, name, panels, save, shades

_SECTIONS = (Section.BOARD, Section.OOM, Section.DELTA, Section.FILE)
_FIGURE_OF_MESSAGES = "allocated"  # the others of a message are differences of large numbers, or no sizes of ours
_MOST_SHARE = 0.16  # what is further off stands at the edge
_GIB = 1 << 30


def draw_accuracy(compared: Sequence[Compared]) -> Figure | None:
    """A panel with all sizes; None where none is compared."""
    shown = [each for each in compared if _is_drawn(each)]
    if not shown:
        return None
    figure, ((panel,),) = panels(1, 1, 3.4, share=False)
    name(figure, "Ours over what was published of real cards", simulated=True)
    handles: list[Artist] = []
    for index, peer in enumerate(PEERS):
        panel.axhspan(1 - peer.share, 1 + peer.share, color=GREY, alpha=0.22 - 0.1 * index, lw=0)
        handles.append(key(f"{peer.name}: {peer.words}", marker="s", ms=9, color=GREY, alpha=0.3 - 0.1 * index))
    panel.axhline(1.0, color=GREY, lw=0.8)
    for section, shape, colour in zip(_SECTIONS, SHAPES, shades(len(_SECTIONS)), strict=False):
        points = [each for each in shown if each.section is section]
        if not points:
            continue
        for told, fill in ((True, colour), (False, "none")):
            some = [each for each in points if (each.unknown is None) is told]
            panel.plot(
                [(each.published or 0) / _GIB for each in some],
                [1 + max(-_MOST_SHARE, min(_MOST_SHARE, each.share or 0)) for each in some],
                shape,
                color=colour,
                mfc=fill,
                ms=5.5,
                ls="",
            )
        handles.append(key(f"{section} ({len(points)})", marker=shape, color=colour))
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.set_xlabel("published, GiB", fontsize=USUAL)
    panel.set_ylabel("ours / published", fontsize=USUAL)
    panel.set_ylim(1 - _MOST_SHARE - 0.01, 1 + _MOST_SHARE + 0.01)
    words = [
        "Filled: all settings are told. Hollow: some are assumed. What is more than 16 % off stands at the edge.",
        "Of out-of-memory messages the allocated bytes. Grey: errors that others have published of their estimates.",
    ]
    explain(figure, handles, words)
    return figure


def _is_drawn(each: Compared) -> bool:
    if each.section is Section.OOM and each.figure != _FIGURE_OF_MESSAGES:
        return False
    return each.section in _SECTIONS and each.is_compared and each.share is not None and (each.published or 0) > 0


def write_accuracy(compared: Sequence[Compared], png: Path) -> Path | None:
    """Writes the picture as `png`; None where there is nothing to draw."""
    figure = draw_accuracy(compared)
    if figure is None:
        return None
    for path in save(figure, png.with_suffix("")):
        if path.suffix != ".png":
            path.unlink()
    return png
