"""`doctor --self-test`: known sizes are taken, and what is told of them is held against what it must be."""

from __future__ import annotations

import json

import pytest

from bench.commands import self_test
from bench.core.self_test import STEPS
from tests.conftest import Program


@pytest.mark.parametrize(
    ("overrides", "checks"),
    [
        (("device=rtx_3060_12gb",), 15),
        (("device=t4", "vram_limit=2GiB", "engine=exllamav3"), 15),
        (("device=2xrtx_3090",), 29),
    ],
)
def test_what_is_told_is_what_was_taken(in_process: Program, overrides: tuple[str, ...], checks: int) -> None:
    done = in_process("doctor", "--self-test", *overrides)
    assert done.returncode == 0, done.stdout
    assert f"{checks} of {checks} checks passed" in done.stdout
    assert "(simulated)" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_every_difference_is_told_and_ends_with_1(in_process: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [step._replace(reserved_bytes=step.reserved_bytes + 1) for step in STEPS]
    monkeypatch.setattr(self_test, "STEPS", [*STEPS[:2], wrong[2], *STEPS[3:]])
    done = in_process("doctor", "--self-test", "device=t4", "--json")
    document = json.loads(done.stdout)
    faults = [check["fault"] for check in document["checks"] if check["fault"] is not None]
    assert (done.returncode, document["passed"], document["device_kind"]) == (1, False, "simulated")
    assert faults == ["reserved must be 102,760,449 B (-1 B)"] * 2
    monkeypatch.setattr(self_test, "STEPS", wrong)
    done = in_process("doctor", "--self-test", "device=t4")
    assert "\n1 of 15 checks passed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("device=t4",), "takes keys with --self-test alone"),
        (("--self-test", "bpw=3"), "device, engine and vram_limit alone"),
        (("--self-test", "device=t4,l4"), "one machine is tested at a time"),
        (("--self-test", "device=cuda"), "no NVIDIA GPU"),
    ],
)
def test_what_is_not_tested_is_refused(in_process: Program, arguments: tuple[str, ...], said: str) -> None:
    done = in_process("doctor", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
