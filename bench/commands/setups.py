"""What is said of another program's configuration: what was made of it, and whether it fits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from bench.core.printable import printable
from bench.report.forecasts import ForecastRow
from bench.report.setups import SetupAnswer, answer_lines
from bench.report.text.console import console_for
from bench.setups.beside import Beside
from bench.setups.setup import Setup


def answers_of(asked: Sequence[Beside], rows: Sequence[ForecastRow]) -> list[SetupAnswer]:
    """The answers; `rows` are those of the cases, and then those of what was asked beside each, in its order."""
    left = iter(rows[len(asked) :])
    answers = []
    for each, row in zip(asked, rows, strict=False):
        largest = None if each.largest is None else next(left)
        longest = None if each.longest is None else next(left)
        answers.append(SetupAnswer(row, largest, longest, {cache: next(left) for cache in each.finer}))
    return answers


def show_setup(setup: Setup, answers: Sequence[SetupAnswer], stream: TextIO | None = None) -> None:
    """What was made of it, what was not, and the answers."""
    console = console_for(stream)
    for line in (*setup_lines(setup), *answer_lines(answers, setup.key_of, setup.frontend.word_for), ""):
        console.print(printable(line), highlight=False, soft_wrap=False, markup=False)


def tell_setup(setup: Setup) -> None:
    """The same without answers, beside a run."""
    show_setup(setup, [], sys.stderr)


def setup_lines(setup: Setup) -> list[str]:
    """What was made of it, key by key; nothing that it says is left out."""
    frontend = setup.frontend
    lines = [f"{setup.source}, read as {frontend.title} {frontend.version} reads it, with {setup.engine.title}:"]
    lines += [f"  {said}: {' '.join(made) or 'as it is by itself'}" for said, made in setup.read.items()]
    if setup.left:
        lines += ["Not taken into account:", *(f"  {said}: {why}" for said, why in setup.left.items())]
    if setup.unknown:
        lines.append(f"Not known, and not taken into account: {', '.join(setup.unknown)}")
    if setup.no_memory:
        lines.append(f"No memory of a card: {', '.join(setup.no_memory)}")
    return [*lines, ""]
