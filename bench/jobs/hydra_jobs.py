"""Hydra's side of a sweep by a launcher: what it composes for the launcher, and the function that each job calls.

A job is told no key of ours, so Hydra reads no file of ours again when it starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from bench.config.catalogue import config_dir
from bench.config.typed import quoted
from bench.jobs.job import Told, do

_NAME = "vram-bench-job"
_KEYS = ("run_dir", "number", "hash", "started_by", "token")


class Jobs:
    """Sends jobs to one of Hydra's launchers; `own` is what Hydra composed of its own part, changed as needed."""

    def __init__(self, own: DictConfig, folder: Path) -> None:
        self.own = own
        self._folder = folder

    def launch(self, jobs: Sequence[Told], first: int) -> list[str | None]:
        """Waits for all of them: for each None, or why it could not be done. Raises what the launcher does."""
        ConfigStore.instance().store(name=_NAME, node=dict.fromkeys(_KEYS, MISSING))
        returned = self._launcher().launch([_words(job) for job in jobs], initial_job_idx=first)
        return [_said(each) for each in returned]

    def _launcher(self) -> Launcher:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(config_dir()), version_base="1.3", job_name=_NAME):
            hydra = GlobalHydra.instance()
            loader = hydra.config_loader()
        config = OmegaConf.create({"hydra": self.own})
        with open_dict(config):
            config.hydra.sweep.dir, config.hydra.sweep.subdir = str(self._folder), "."
            config.hydra.job.config_name, config.hydra.job.name = _NAME, _NAME
            config.hydra.overrides.task = []
            config.hydra.overrides.hydra = [
                f"hydra.sweep.dir={quoted(str(self._folder))}",
                "hydra.sweep.subdir=.",
                f"hydra.run.dir={quoted(str(self._folder))}",
                "hydra.output_subdir=null",
                "hydra/job_logging=none",
                "hydra/hydra_logging=none",
            ]
        HydraConfig.instance().set_config(config)
        context = HydraContext(config_loader=loader, callbacks=Callbacks())
        return Plugins.instance().instantiate_launcher(hydra_context=context, task_function=_job, config=config)


def _words(job: Told) -> list[str]:
    return [f"{key}={quoted(str(getattr(job, key)))}" for key in _KEYS]


def _job(config: Any) -> str | None:
    """What Hydra calls in each job."""
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    told = {key: str(plain[key]) for key in _KEYS}
    return do(Told(told["run_dir"], int(told["number"]), told["hash"], told["started_by"], told["token"]))


def _said(returned: JobReturn) -> str | None:
    if returned.status is JobStatus.COMPLETED:
        return None if returned.return_value is None else str(returned.return_value)
    error = returned._return_value
    return f"{type(error).__name__}: {error}"
