"""What pull requests are checked with: the workflow, its page, and its baseline belong together."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.config.cases import plan_sweep
from bench.store.store import read_boundaries, read_cases

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / ".github" / "workflows" / "vram.yml"
BASELINE = ROOT / ".github" / "baseline"
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
STEPS: list[dict[str, Any]] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["compare"]["steps"]

# Stands in for GitHub's own: keeps its arguments, and answers a question for comments with one that is there, or none.
GH = """\
#!/bin/sh
printf '%s\\n' "$*" >> calls.txt
case "$*" in *--paginate*) printf '%s' "$THERE" ;; esac
"""


def _step(name: str) -> dict[str, Any]:
    return next(step for step in STEPS if step.get("name") == name)


def test_the_page_shows_the_workflow_as_it_is_and_explains_each_step() -> None:
    shown = PAGE.split("```yaml\n")[1].split("```")[0]
    assert shown == WORKFLOW.read_text(encoding="utf-8")
    assert not [step["name"] for step in STEPS if "name" in step and f"| {step['name']} |" not in PAGE]


@pytest.mark.parametrize(
    ("there", "called"),
    [
        ("42\n", "api --silent --method PATCH repos/o/r/issues/comments/42 -F body=@comment.md"),
        ("", "api --silent repos/o/r/issues/7/comments -F body=@comment.md"),
    ],
)
def test_the_comment_is_made_once_and_then_changed(tmp_path: Path, there: str, called: str) -> None:
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(GH)
    gh.chmod(gh.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "report.md").write_text("**✓ vram-bench passed**\n", encoding="utf-8")
    environment = {
        "PATH": f"{gh.parent}{os.pathsep}{os.environ['PATH']}",
        "THERE": there,
        "COMMENTS": "repos/o/r/issues/7/comments",
        "COMMENT": "repos/o/r/issues/comments",
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", _step("Comment")["run"]]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "calls.txt").read_text().splitlines()[1:] == [called]
    assert (tmp_path / "comment.md").read_text(encoding="utf-8") == "<!-- vram-bench -->\n**✓ vram-bench passed**\n"


def test_the_baseline_holds_what_the_sweep_of_a_pull_request_finds() -> None:
    sweep = plan_sweep(["experiment=pull_request"])
    asked = {
        (case.device.name, case.model.name, case.model.fingerprint, case.bpw, case.cache, case.lazy)
        for case in (search.longest for search in sweep.searches)
    }
    boundaries, problems = read_boundaries(BASELINE)
    rows = boundaries.to_pylist()
    names = ("device_name", "model", "model_fingerprint", "bpw", "cache", "lazy")
    assert {tuple(row[name] for name in names) for row in rows} == asked
    assert (sweep.cases, problems) == ([], [])
    assert all(row["certified"] for row in rows)


def test_the_baseline_does_not_say_where_it_was_made() -> None:
    for read in (read_cases, read_boundaries):
        for row in read(BASELINE)[0].to_pylist():
            assert not {"host", "environment", "telemetry", "phases"} & {name for name, value in row.items() if value}


def test_the_template_of_an_issue_takes_what_share_packs() -> None:
    template = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "measured-rows.yml").read_text(encoding="utf-8"))
    by_id = {part["id"]: part for part in template["body"] if "id" in part}
    assert by_id["pack"]["validations"]["required"]
    assert "vram-bench share results/new-gpu --out new-gpu.zip" in template["body"][0]["attributes"]["value"]
    assert "vram-bench share results/new-gpu --out new-gpu.zip" in (ROOT / "docs" / "new-gpu.md").read_text("utf-8")
