"""`vram-bench plan`: what a sweep is expected to find and to take, without running it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench.answers.foreseen import foresee
from bench.commands.display import display_for
from bench.commands.setups import answers_of, show_setup
from bench.config.cases import plan_sweep
from bench.core.case import Case, Search
from bench.core.errors import ExitCode
from bench.launch.inspection import require_whole
from bench.report.forecasts import Expectation, ForecastRow, document, in_lines
from bench.setups.beside import beside
from bench.setups.setup import Setup


def run(arguments: argparse.Namespace) -> int:
    """`vram-bench plan KEY=VALUE… [--json]`."""
    return plan(arguments.overrides, arguments.json, arguments.setup)


def plan(overrides: Sequence[str], as_json: bool, setup: Setup | None = None) -> int:
    """Says what `sweep` would do with the same `overrides`; returns the exit code.

    Where they are a `setup`, another program's, it is said what was made of that, and how far it could go.
    """
    planned = plan_sweep(overrides)
    require_whole([*(search.longest for search in planned.searches), *planned.cases])
    asked = [] if setup is None else [beside(case, setup.frontend) for case in planned.cases]
    works: list[Case | Search] = [
        *planned.searches,
        *planned.cases,
        *(work for each in asked for work in each.works[1:]),
    ]
    own = len(planned.searches) + len(planned.cases)
    with display_for(sys.stderr) as display:
        foreseen = foresee(works, planned.settings, own, display)
    answers = [] if setup is None else answers_of(asked, foreseen.rows[len(planned.searches) :])
    rows = foreseen.rows[:own]
    expectation = foreseen.expectation([*rows, *(row for each in answers for row in each.searches)])
    if as_json:
        told = {} if setup is None else {"setup": {**setup.to_json(), "answers": [each.to_json() for each in answers]}}
        sys.stdout.writelines(in_lines(document(rows, expectation) | told))
        return ExitCode.DONE
    if setup is not None:
        show_setup(setup, answers)
    _show(rows, expectation)
    return ExitCode.DONE


def _show(rows: Sequence[ForecastRow], expectation: Expectation) -> None:
    from bench.report.tables.forecasts import show
    from bench.report.text.console import console_for

    show(rows, expectation, console_for())
