"""A sweep through one of Hydra's launchers (joblib, Ray, Slurm): one Hydra job for each search.

A search is every axis but the length; its lengths are walked inside the job: one start of the worker serves all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from bench.config import compose as config
from bench.config import hydra_compose
from bench.config.cases import Sweep, work_of
from bench.config.chosen import complete
from bench.config.typed import quoted
from bench.core.case import Case, Search
from bench.core.errors import BadInput
from bench.launch.versions import installed_versions
from bench.run.locks import claimed
from bench.run.sweep import Finished, SweepOptions, new_run_id, run_sweep
from bench.store.store import compact


def launch(overrides: Sequence[str], planned: Sweep, results_dir: Path) -> Finished:
    """Runs an already checked sweep by `hydra/launcher`, and waits for it.

    Where the launcher itself fails, Hydra says why, and what was measured until then is kept.
    """
    run_id = planned.settings.run_id or new_run_id()
    where = [f"run_id={quoted(run_id)}", f"results_dir={quoted(str(results_dir))}"]
    arguments = [*hydra_compose.fold_lengths(overrides), *where]
    hydra_compose.register_schema()
    program = hydra.main(config_path=str(config.config_dir()), config_name="config", version_base="1.3")(run_cell)
    before, sys.argv = sys.argv, ["vram-bench", *arguments]
    interrupted = False
    try:
        program()
    except SystemExit as error:
        if error.code:
            print(f"vram-bench: the launcher failed ({error.code}); the reason is above", file=sys.stderr)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        sys.argv = before
    run_dir = results_dir / run_id
    measured = _compacted(run_dir)
    versions = installed_versions()
    return Finished(
        [case.case_id(versions) for case in planned.cases],
        [search.boundary_id(versions) for search in planned.searches],
        run_dir if measured else None,
        interrupted,
    )


def _compacted(run_dir: Path) -> bool:
    """Makes parquet files of what the jobs have written; whether there is any."""
    try:
        with claimed(run_dir):
            return compact(run_dir) is not None
    except (OSError, BadInput):  # there is no run, or another sweep cleans up
        return any(run_dir.glob("*.parquet"))


def run_cell(composed: DictConfig) -> None:
    """One Hydra job. Never raises for a case that fails: its row says so, and the batch goes on."""
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    chosen = HydraConfig.get().runtime.choices
    nodes = {group: complete(plain[group], chosen[group]) for group in ("model", "device")}
    settings = config.validate({**{key: value for key, value in plain.items() if key != "hydra"}, **nodes})
    work = work_of(settings)
    finished = run_sweep(
        [asked for asked in work if isinstance(asked, Case)],
        [asked for asked in work if isinstance(asked, Search)],
        SweepOptions.of(settings, share_run=True),
    )
    if finished.interrupted:
        raise KeyboardInterrupt
