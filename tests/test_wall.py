"""Who may import whom: the architecture, checked on the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from bench.engines.registry import NAMES

ROOT = Path(__file__).parent.parent / "bench"
FILES = sorted(ROOT.rglob("*.py"))
TABLE = re.findall(
    r"^\| `([\w.]+)/?` \|.*\| ([\w, ]*)\|$",
    (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
# Each room, and what of bench it may import besides itself, as the docs say.
ALLOWED = {room.removesuffix(".py"): set(filter(None, others.strip().split(", "))) for room, others in TABLE}
# Packages with one door each.
DOORS = {
    "pynvml": {"nvml.py"},
    "safetensors": {"tensor_files.py"},
    "pyarrow": {"store/foreign.py", "store/schema.py", "store/store.py"},
    "scipy": {"comparison/speeds.py"},
    "matplotlib": {
        f"report/plots/{name}.py"
        for name in (
            *("accuracy", "boundary", "ends", "engines", "grid", "jobs", "memory", "peaks", "speeds", "style", "write"),
        )
    },
    "plotly": {"report/html/figures.py"},
    "itables": {"report/html/cases.py"},
    "jinja2": {"report/html/page.py"},
    "numba": {"allocator/compiled.py"},
    "hydra": {"config/compose.py", "config/overrides.py", "run/hydra_launch.py"},
    "huggingface_hub": {"config/hub.py", "config/hub_answers.py"},
    "shtab": {"commands/completion.py"},
}


# Files that name an engine, and why.
NAMING = {
    "engines/registry.py": "the list of engines",
    "worker/engines/registry.py": "the same in the worker",
    "analysis/claims.py": "where people said what is held against rows: a link",
    "core/case.py": "the engine of a case that names none",
    "core/identity_columns.py": "a column of stored rows has its name",
}


@cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("bench.")} - {room_of(path)}


def test_the_docs_tell_of_every_room() -> None:
    assert {room_of(path) for path in FILES} - {"__init__", "__main__"} == set(ALLOWED)


def test_rooms_import_only_what_stands_above_them() -> None:
    above: set[str] = set()
    for room, others in ALLOWED.items():
        assert others <= above, f"{room} imports upwards"
        above.add(room)


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_are_those_that_the_docs_tell(room: str) -> None:
    assert set().union(*(rooms_imported(path) for path in FILES if room_of(path) == room)) == ALLOWED[room]


def test_there_is_no_cycle() -> None:
    modules = {module_of(path): path for path in FILES}
    arrows = {name: {other for other in imports(path) if other in modules} for name, path in modules.items()}
    while arrows:
        leaves = {name for name, others in arrows.items() if not others & arrows.keys() - {name}}
        assert leaves, f"in a circle: {sorted(arrows)}"
        arrows = {name: others for name, others in arrows.items() if name not in leaves}


@pytest.mark.parametrize(
    ("file", "name"),
    re.findall(r"`([\w/]+\.py)` `(\w+)`", (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")),
)
def test_what_the_docs_name_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_parent_imports_no_engine(path: Path) -> None:
    if room_of(path) != "worker":
        assert not {name for name in imports(path) if name.split(".")[0] in ("torch", *NAMES)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_names_an_engine_but_its_own(path: Path) -> None:
    """What is said of one engine stands in its folders, so that a second one comes in by one door."""
    place = path.relative_to(ROOT)
    own = [name for name in NAMES if f"engines/{name}/" in str(place)]
    found = [name for name in NAMES if name not in own and name in path.read_text(encoding="utf-8").lower()]
    assert not found or str(place) in NAMING


@pytest.mark.parametrize("package", DOORS)
def test_each_library_has_its_door(package: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name == package or name.startswith(f"{package}.") for name in imports(path))
    }
    assert users == DOORS[package]


def test_the_program_starts_without_torch() -> None:
    script = "import sys, bench.__main__; assert not {'torch', 'exllamav2', 'exllamav3', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
