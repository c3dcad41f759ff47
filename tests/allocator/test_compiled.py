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
from importlib import import_module
sys.path.insert(0, "package")
for how in {!r}:
    caller = import_module("caller_" + how)
    print(how, caller.ask(), sum(caller.ask.stats.cache_hits.values()))
"""
HOWS = ("compiled", "inlined", "compiled_with_arrays")


def _ask(folder: Path, *hows: str, **more: str) -> list[tuple[str, int, int]]:
    """What the function that is compiled in each way answers in a new process, and how often it was there already."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **more}
    ask = [sys.executable, "-c", _ASK.format(hows)]
    done = subprocess.run(ask, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = (line.split() for line in done.stdout.splitlines())
    return [(how, int(answer), int(hits)) for how, answer, hits in told]


@pytest.mark.parametrize(
    ("hows", "more"), [(HOWS, {}), (HOWS[:1], {"NUMBA_CACHE_DIR": "kept"})], ids=["beside it", "elsewhere"]
)
def test_a_function_is_compiled_again_when_a_file_that_it_calls_has_changed(
    tmp_path: Path, hows: tuple[str, ...], more: dict[str, str]
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for how in hows:
        (package / f"caller_{how}.py").write_text(_CALLER.format(how))
    (package / "callee.py").write_text(_CALLEE.format(41))
    for path in package.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert _ask(tmp_path, *hows, **more) == [(how, 41, 0) for how in hows]
    assert _ask(tmp_path, *hows, **more) == [(how, 41, 1) for how in hows]  # as it was kept
    (package / "callee.py").write_text(_CALLEE.format(42))
    assert _ask(tmp_path, *hows, **more) == [(how, 42, 0) for how in hows]


def test_what_others_keep_in_the_same_place_stays(tmp_path: Path) -> None:
    """Numba has a folder for each folder of sources there; an older one may be of any program."""
    package, other = tmp_path / "package", tmp_path / "kept" / "other_0123"
    package.mkdir()
    other.mkdir(parents=True)
    (other / "of.another.nbi").write_text("")
    os.utime(other / "of.another.nbi", (1_000_000_000, 1_000_000_000))
    (package / "caller_compiled.py").write_text(_CALLER.format("compiled"))
    (package / "callee.py").write_text(_CALLEE.format(41))
    assert _ask(tmp_path, "compiled", NUMBA_CACHE_DIR="kept") == [("compiled", 41, 0)]
    assert (other / "of.another.nbi").exists()
