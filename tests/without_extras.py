"""Runs `python -m bench` as where only the core is installed: several commands in one process, told as JSON.

python tests/without_extras.py '[["list", "models"], ["plan", …]]'   → [[exit code, stdout, stderr], …]
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

EXTRAS = (
    *("torch", "numba", "llvmlite", "pyarrow", "scipy", "pandas", "plotly", "matplotlib", "itables", "jinja2"),
    *("exllamav2", "exllamav3", "tokenizers"),
)


class _NotInstalled:
    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide_extras() -> None:
    find_spec, version = importlib.util.find_spec, importlib.metadata.version

    def found(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in EXTRAS else find_spec(name, package)

    def of_core(distribution: str) -> str:
        if distribution in EXTRAS:
            raise importlib.metadata.PackageNotFoundError(distribution)
        return version(distribution)

    sys.meta_path.insert(0, _NotInstalled())  # type: ignore[arg-type]
    importlib.util.find_spec = found
    importlib.metadata.version = of_core


def main(commands: list[list[str]]) -> list[tuple[int, str, str]]:
    hide_extras()
    from bench.__main__ import main as program

    told = []
    for command in commands:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = program(command)
            except SystemExit as end:
                code = int(end.code or 0)
        told.append((code, out.getvalue(), err.getvalue()))
    return told


if __name__ == "__main__":
    told = main(json.loads(sys.argv[1]))
    print(json.dumps(told))
