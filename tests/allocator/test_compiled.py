"""What numba keeps of functions whose callees have changed is compiled again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CALLER = """
from callee import answer
from bench.allocator.compiled import compiled

@compiled
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
from pathlib import Path
from bench.allocator.compiled import forget_stale
forget_stale(Path("package"))
import sys
sys.path.insert(0, "package")
import caller
print(caller.ask(), sum(caller.ask.stats.cache_hits.values()))
"""


def _ask(folder: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", _ASK], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_function_is_compiled_again_when_a_file_that_it_calls_has_changed(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "caller.py").write_text(_CALLER)
    (package / "callee.py").write_text(_CALLEE.format(41))
    for path in package.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert _ask(tmp_path) == ["41", "0"]
    assert _ask(tmp_path) == ["41", "1"]  # as it was kept
    (package / "callee.py").write_text(_CALLEE.format(42))
    assert _ask(tmp_path) == ["42", "0"]
