"""What numba keeps of functions whose callees have changed is compiled again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_CALLER = """
from callee import answer
from bench.allocator.compiled import {0}

@{0}
def ask() -> int:
    return answer()
"""
_CALLEE = """
from bench.allocator.compiled import compiled

@compiled
def answer() -> int:
    return {}
"""
_ASK = """
import sys
sys.path.insert(0, "package")
import caller
print(caller.ask(), sum(caller.ask.stats.cache_hits.values()))
"""


def _ask(folder: Path, **more: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **more}
    done = subprocess.run([sys.executable, "-c", _ASK], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("how", "more"),
    [
        ("compiled", {}),
        ("inlined", {}),
        ("compiled_with_arrays", {}),
        ("compiled", {"NUMBA_CACHE_DIR": "kept"}),
    ],
)
def test_a_function_is_compiled_again_when_a_file_that_it_calls_has_changed(
    tmp_path: Path, how: str, more: dict[str, str]
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "caller.py").write_text(_CALLER.format(how))
    (package / "callee.py").write_text(_CALLEE.format(41))
    for path in package.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert _ask(tmp_path, **more) == ["41", "0"]
    assert _ask(tmp_path, **more) == ["41", "1"]  # as it was kept
    (package / "callee.py").write_text(_CALLEE.format(42))
    assert _ask(tmp_path, **more) == ["42", "0"]


def test_what_others_keep_in_the_same_place_stays(tmp_path: Path) -> None:
    """Numba has a folder for each folder of sources there; an older one may be of any program."""
    package, other = tmp_path / "package", tmp_path / "kept" / "other_0123"
    package.mkdir()
    other.mkdir(parents=True)
    (other / "of.another.nbi").write_text("")
    os.utime(other / "of.another.nbi", (1_000_000_000, 1_000_000_000))
    (package / "caller.py").write_text(_CALLER.format("compiled"))
    (package / "callee.py").write_text(_CALLEE.format(41))
    assert _ask(tmp_path, NUMBA_CACHE_DIR="kept") == ["41", "0"]
    assert (other / "of.another.nbi").exists()
