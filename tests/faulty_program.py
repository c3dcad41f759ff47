"""The program with the engine that does what it should not (`tests/engines/faulty`), as a command line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bench.engines.registry import MORE_ENGINES

ROOT = Path(__file__).parent.parent
# The program; the report of so many models takes longer than all else, and is not made.
_MAIN = """\
import sys
from types import SimpleNamespace
from bench.__main__ import main
from bench.commands import sweep
sweep.publish = lambda *of, **how: SimpleNamespace(files=[])
sys.exit(main(sys.argv[1:]))
"""


class FaultyProgram(NamedTuple):
    """`command` is to be followed by a command's name and overrides; it needs `environment`."""

    command: tuple[str, ...]
    environment: dict[str, str]
    config_dir: Path

    def sweep(self, faults: Iterable[tuple[str, str]], *overrides: str) -> list[str]:
        """The command line of a sweep whose models have such a fault in such a phase each; their names say both."""
        models = ",".join(f"{fault}_in_{phase}" for fault, phase in faults)
        asked = [f"model={models}", "engine=faulty", "device=t4", *overrides]
        return [*self.command, "sweep", "--config-dir", str(self.config_dir), *asked]


def faulty_program(folder: Path, faults: Iterable[tuple[str, str]]) -> FaultyProgram:
    """Makes below `folder` the models of some faults, and what says that the engine is installed."""
    models = folder / "conf" / "model"
    models.mkdir(parents=True)
    for fault, phase in faults:
        name = f"{fault}_in_{phase}"
        config = {"architectures": ["FaultyForCausalLM"], "fault": fault, "fault_phase": phase}
        config["max_position_embeddings"] = 1 << 20  # type: ignore[assignment]
        text = {"name": name, "repo": None, "revision": None, "source": "made up for tests", "config": config}
        (models / f"{name}.yaml").write_text(json.dumps(text))
    installed = folder / "installed" / "faulty-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "engines"), str(installed.parent)])
    environment = {**os.environ, "PYTHONPATH": path, MORE_ENGINES: "faulty", "COLUMNS": "120"}
    return FaultyProgram((sys.executable, "-c", _MAIN), environment, models.parent)
