"""Where the output can have ASCII alone, as a pipe on Windows may, all commands print something readable."""

from __future__ import annotations

import pytest

from bench.core.encoding import HANDLER
from tests.conftest import Program

SWEEP = ("model=tinyllama_1_1b", "device=rtx_3060_12gb", "bpw=4.0", "jobs=1")


def test_all_commands_print_what_the_output_can_have(in_process: Program) -> None:
    said = {
        "sweep": in_process("sweep", *SWEEP, "max_seq_len=512", "results_dir='结果'", PYTHONIOENCODING="ascii"),
        "plan": in_process("plan", *SWEEP, "cache=FP16,Q4", "max_seq_len=auto", PYTHONIOENCODING="ascii"),
        "report": in_process("report", "--results", "结果", PYTHONIOENCODING="ascii"),
        "compare": in_process("compare", "结果", "结果", PYTHONIOENCODING="ascii"),
        "doctor": in_process("doctor", PYTHONIOENCODING="ascii"),
        "help": in_process("--help", PYTHONIOENCODING="ascii"),
        "bad input": in_process("report", "--results", "没有", PYTHONIOENCODING="ascii"),
    }
    codes = {name: done.returncode for name, done in said.items()}
    assert codes == {**dict.fromkeys(said, 0), "bad input": 2}, said
    for name, done in said.items():
        text = done.stdout + done.stderr
        assert "UnicodeEncodeError" not in text, name
        assert "\ufffd" not in text, name
        assert text.isascii()
    assert "|" in said["plan"].stdout
    assert "\\u7ed3\\u679c" in said["report"].stdout


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("– 1,024", "- 1,024"),
        ("≥ 4,096 of", ">=4,096 of"),
        ("≥4", ">4"),
        ("│████▓▓▒■░░»", "|####%%+@..>"),
        ("✓ passed → 2 × 3", "+ passed > 2 x 3"),
        ("… and 3 more", "... and 3 more"),
        ("RTX 40…", "RTX 40~"),
        ("模型/phi", "\\u6a21\\u578b/phi"),
        ("⠋ recording", ". recording"),
        ("\U0001f600", "\\U0001f600"),
    ],
)
def test_what_stands_in_for_a_character(text: str, printed: str) -> None:
    assert text.encode("ascii", HANDLER).decode() == printed


def test_what_can_be_encoded_stays(in_process: Program) -> None:
    in_process("doctor")
    assert "– » …".encode("cp1252", HANDLER).decode("cp1252") == "– » …"
    assert "✓ █".encode("utf-8", HANDLER).decode() == "✓ █"
