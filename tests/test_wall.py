"""Who may import whom: the architecture, checked on the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "bench"
FILES = sorted(ROOT.rglob("*.py"))
# Each folder, and what of bench it may import besides itself.
ALLOWED = {
    "checkpoint": set(),
    "memory": {"records"},
    "notes": {"checkpoint", "memory", "records"},
    "plan": {"errors", "memory", "nvml", "records"},
    "run": {"checkpoint", "errors", "memory", "notes", "nvml", "plan", "records", "results"},
    "worker": {"checkpoint", "memory", "notes", "nvml", "records"},
    "results": {"records"},
    "report": {"errors", "records", "results"},
    "commands": {"command_line", "errors", "notes", "nvml", "plan", "records", "report", "results", "run"},
}
# Packages with one door each.
DOORS = {
    "pynvml": {"nvml.py"},
    "pyarrow": {"results/schema.py", "results/store.py"},
    "scipy": {"results/speeds.py"},
    "matplotlib": {f"report/plots/{name}.py" for name in ("boundary", "grid", "memory", "peaks", "style", "write")},
    "plotly": {"report/page_figures.py"},
    "itables": {"report/page_cases.py"},
    "jinja2": {"report/page.py"},
    "numba": {f"memory/{name}.py" for name in ("compiled", "flash", "schedule", "sections", "sort")},
    "hydra": {"plan/config.py", "plan/overrides.py", "run/hydra_launch.py"},
    "huggingface_hub": {"plan/hub.py"},
    "shtab": {"commands/completion.py"},
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_architecture(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    mine = {name.split(".")[1] for name in imports(path) if name.startswith("bench.") and name.count(".") >= 1}
    if folder in ALLOWED:
        assert mine <= ALLOWED[folder] | {folder}
    if folder != "worker":
        assert not {name for name in imports(path) if name.split(".")[0] in ("torch", "exllamav2")}


@pytest.mark.parametrize("package", DOORS)
def test_each_library_has_its_door(package: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name == package or name.startswith(f"{package}.") for name in imports(path))
    }
    assert users == DOORS[package]


def test_the_program_starts_without_torch() -> None:
    script = "import sys, bench.__main__; assert not {'torch', 'exllamav2', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
