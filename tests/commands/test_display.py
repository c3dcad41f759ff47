"""One display for all commands that take long: live in a terminal, lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from bench.commands.display import LiveDisplay, PlainLines, Quarters, display_for


def _terminal(width: int = 80, encoding: str = "utf-8") -> tuple[Console, io.BytesIO]:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="vram-bench", write_through=True)
    return Console(file=file, width=width, force_terminal=True, force_interactive=True, color_system=None), raw


def _shown(display: LiveDisplay, console: Console) -> list[str]:
    with console.capture() as captured:
        console.print(display.get_renderable())
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_a_step_with_a_total_has_a_bar_and_says_what_is_left(width: int) -> None:
    console, _ = _terminal(width)
    display = LiveDisplay(console, lambda: [Text("below " * 40, no_wrap=True, overflow="ellipsis")])
    display.begin("writing", 100, known=50)
    line, below = _shown(display, console)
    assert line.endswith(" writing, 0.0 s so far")
    display.reach(75, "75 of 100 written")
    line, below = _shown(display, console)
    bar, _, words = line.partition(" ")
    assert bar == "━" * (3 * min(40, width - 44) // 4)
    assert words.strip().startswith("75 of 100 written, ")
    assert words.endswith(" left")
    assert (len(below), below[-1]) == (width, "…")
    display.begin("predicting")
    assert _shown(display, console)[0] == "⠋ predicting"


def test_where_the_output_has_ascii_alone_bar_and_spinner_are_readable() -> None:
    console, raw = _terminal(encoding="ascii")
    display = LiveDisplay(console)
    console.print(display.get_renderable())
    display.begin("writing", 4)
    display.reach(2, "2/4")
    console.print(display.get_renderable())
    spinner, bar = raw.getvalue().decode("ascii").splitlines()
    assert spinner == ". getting ready"
    assert bar.startswith("-" * 18)
    assert "2/4, " in bar


def test_a_live_display_leaves_nothing_behind() -> None:
    console, raw = _terminal()
    with LiveDisplay(console) as display:
        display.begin("writing", 4)
        display.reach(4, "4/4")
        display.refresh()
        display.say("for a log alone")
    written = raw.getvalue().decode()
    assert "4/4" in written
    assert "for a log" not in written
    assert written.endswith("\x1b[1A\x1b[2K")  # up, and the line is erased
    assert written.count("\n") == 1


def test_elsewhere_only_what_is_said_is_printed_and_is_not_wrapped() -> None:
    file = io.StringIO()
    with display_for(file) as display:
        assert isinstance(display, PlainLines)
        display.begin("writing", 4)
        display.reach(2, "2/4")
        display.say("[2/4] " + "long " * 40)
    assert file.getvalue() == "[2/4] " + "long " * 40 + "\n"


def test_of_many_parts_each_quarter_is_told_once() -> None:
    quarters = Quarters()
    assert [done for done in range(41) if quarters.another(done, 40)] == [10, 20, 30, 40]
