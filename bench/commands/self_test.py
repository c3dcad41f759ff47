"""`vram-bench doctor --self-test`: whether what is told of a card's memory is what was taken of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate

from rich.table import Table
from rich.text import Text

from bench.config.cases import plan_self_test
from bench.core.case import Case
from bench.core.errors import ExitCode
from bench.core.messages import Memory
from bench.core.outcome import Outcome
from bench.core.requests import SelfTest
from bench.core.scratch import scratch_folder
from bench.core.self_test import STEPS
from bench.launch.launcher import LauncherFailed
from bench.launch.launchers import Launchers, uuids_of
from bench.launch.supervise import Ending, run_isolated
from bench.report.text.console import console_for
from bench.report.text.units import exact_size, size_change
from bench.run.locks import reserved
from bench.run.told import Told
from bench.run.verdict import judge

_TIMEOUT_S = 300.0
_FIGURES = ("allocated", "reserved", "on the card")
_DRIVERS_BYTES = 4 << 20  # what a driver may round, or take beside what it is asked for


_Bytes = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, in words or with what was told of it in bytes (None: the driver does not say).

    `fault` is None where it is as it must be.
    """

    what: str
    told: str | dict[str, int | None]
    fault: str | None = None


def self_test(overrides: Sequence[str], as_json: bool) -> int:
    """Runs it on the machine that `overrides` name, prints a line a check, and returns the exit code."""
    case = plan_self_test(overrides)
    checks = _checks(case, _ended(case))
    failed = [check for check in checks if check.fault is not None]
    if as_json:
        about = {"device": case.machine.name, "device_kind": case.device.kind, "passed": not failed}
        print(json.dumps({**about, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        _show(case, checks)
    return ExitCode.PROBLEMS if failed else ExitCode.DONE


def _show(case: Case, checks: Sequence[Check]) -> None:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for name in _FIGURES:
        table.add_column(f"{name}, B", justify="right", no_wrap=True)
    for check in checks:
        mark = Text("✓", "green") if check.fault is None else Text("✗", "red")
        if isinstance(check.told, str):
            table.add_row(mark, check.what, check.told)
        else:
            told = ["not told" if size_bytes is None else f"{size_bytes:,}" for size_bytes in check.told.values()]
            table.add_row(mark, check.what, *told)
    kind = "simulated" if case.device.is_simulated else "real"
    failed = [check for check in checks if check.fault is not None]
    console = console_for()
    console.print(f"{case.machine.name} ({kind}), with {case.engine}", highlight=False)
    console.print(table)
    for check in failed:
        console.print(Text(f"{check.what.strip()}: {check.fault}", "red"))
    console.print(f"{len(checks) - len(failed)} of {len(checks)} checks passed", highlight=False)


def _ended(case: Case) -> Ending | str:
    """How a worker ended that did it; or why there was none."""
    launchers = Launchers()
    try:
        with scratch_folder() as folder, reserved(uuids_of(case.devices), threading.Event()):
            return run_isolated(launchers.of(case), SelfTest(case), folder / "log", _TIMEOUT_S)
    except LauncherFailed as error:
        return str(error)
    finally:
        launchers.close()


def _checks(case: Case, ending: Ending | str) -> list[Check]:
    if isinstance(ending, str):
        return [Check("the worker", "did not start", ending)]
    told = Told.by(ending.messages)
    totals_bytes = [device.total_memory_bytes for device in case.devices]
    verdict = judge(ending, _TIMEOUT_S, totals_bytes, case.limits_bytes)
    steps = [[done.memory, *done.others] for done in told.phases]
    checks = []
    for card in range(len(case.devices)):
        of = f"card {card}: " if case.more_devices else ""
        checks += [
            Check(f"{of}{check.what}", check.told, check.fault)
            for check in _of_card([memories[card] for memories in steps])
        ]
    if len(steps) < len(STEPS):
        at = f"{len(steps)} of {len(STEPS)} steps"
        return [*checks, Check("the worker", f"came through {at}", verdict.error)]
    wrong = None if verdict.outcome is Outcome.OOM else f"{Outcome.OOM} was to be told: {verdict.error}"
    return [*checks, Check("more than there is", f"{verdict.outcome} in {verdict.phase}", wrong)]


def _of_card(told: Sequence[Memory]) -> Iterator[Check]:
    """What a card said after each step, and the most until then, against what it must be."""
    first = told[0] if told else None
    most_allocated = list(accumulate((step.allocated_bytes for step in STEPS), max))
    most_reserved = list(accumulate((step.reserved_bytes for step in STEPS), max))
    for number, (step, now) in enumerate(zip(STEPS, told, strict=False)):
        assert first is not None
        before = first.allocated_bytes, first.reserved_bytes, first.device_bytes
        grown = step.allocated_bytes, step.reserved_bytes, step.reserved_bytes
        yield _check(step.words, (now.allocated_bytes, now.reserved_bytes, now.device_bytes), before, grown)
        most = most_allocated[number], most_reserved[number], most_reserved[number]
        peaks = now.peak_allocated_bytes, now.peak_reserved_bytes, now.peak_device_bytes
        yield _check("  the most so far", peaks, before, most)


def _check(what: str, told: _Bytes, before: _Bytes, grown: tuple[int, int, int]) -> Check:
    """What is told must be what was told before anything was taken, and by how much it has grown since."""
    faults = []
    for name, slack_bytes, now, was, more in zip(_FIGURES, (0, 0, _DRIVERS_BYTES), told, before, grown, strict=True):
        if now is not None and was is not None and abs(now - was - more) > slack_bytes:
            faults.append(f"{name} must be {exact_size(was + more)} ({size_change(now - was - more)})")
    return Check(what, dict(zip(_FIGURES, told, strict=True)), "; ".join(faults) or None)
