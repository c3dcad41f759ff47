"""The example of docs/adding.md, done in a copy of the program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^```\w+\n# ([\w/.]+), below: ([^\n]+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0].splitlines()

# What must hold of the copy, for whoever adds a key of any name.
_HOLDS = """
import sys
from dataclasses import replace
from pathlib import Path
from bench.config.cases import plan_sweep
from bench.report.naming.work import WorkNames
from bench.store.store import read_cases
versions = {"torch_version": "2"}
case, told, other = (
    plan_sweep(["model=tinyllama_1_1b", "device=t4", "max_seq_len=512", *more]).cases[0]
    for more in ([], ["probe_tokens=32"], ["probe_tokens=8"])
)
assert case.case_id(versions) == told.case_id(versions) == sys.argv[1]
assert other.case_id(versions) != sys.argv[1]
assert other == replace(case, probe_tokens=8)
names = WorkNames([case, other])
assert "8" in names.title(other) and names.title(case) != names.title(other)
rows, problems = read_cases(Path(sys.argv[2]))
assert set(rows.column("probe_tokens").to_pylist()) == {32} and not problems
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python in a copy in which every step was done."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("bench", "conf", "docs", "scripts"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file, below, block in STEPS:
        text = (copy / file).read_text(encoding="utf-8")
        (line,) = (line for line in text.splitlines(keepends=True) if line.strip().startswith(below))
        (copy / file).write_text(text.replace(line, line + block), encoding="utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_a_key_and_its_column_are_four_files(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    renewed, helped, refused = (run(*command.split()[1:]) for command in COMMANDS)
    assert (renewed.returncode, renewed.stderr) == (0, "")
    assert run("scripts/renew/document_columns.py", "--check").returncode == 0
    assert run("-c", "print('| `probe_tokens` |' in open('docs/results.md').read())").stdout == "True\n"
    assert ", probe_tokens" in helped.stdout
    assert refused.returncode == 2
    said = re.sub(r"\s+", " ", PAGE.rpartition("is refused: `")[2].partition("`")[0])
    assert said in refused.stderr


def test_no_id_changes_and_old_rows_tell_it(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    from bench.config.cases import plan_sweep

    (case,) = plan_sweep(["model=tinyllama_1_1b", "device=t4", "max_seq_len=512"]).cases
    done = run("-c", _HOLDS, case.case_id({"torch_version": "2"}), str(ROOT / "tests" / "store" / "frozen"))
    assert done.returncode == 0, done.stderr
