"""The launchers of Hydra that are known here: what each needs, and what it does with GPUs and with lost workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict


@dataclass(frozen=True)
class Scheduler:
    """A launcher of Hydra.

    `gives_gpus`: a job gets its GPU from it, and knows it only where it runs. `has_queue`: its jobs are Slurm's, and
    outlive who asked for them. `loses_all`: with one worker that is killed the others go, and what waits never starts.
    `gpu_keys` are keys of `hydra.launcher` that say how many GPUs a job gets, of which `gpu_keys[0]` is set where the
    user has set none. `where` are those that say on which kind of machine.
    """

    name: str
    gives_gpus: bool = False
    has_queue: bool = False
    loses_all: bool = False
    gpu_keys: Sequence[str] = ()
    where: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, launcher: DictConfig, cards: int, name: str) -> None:
        """Sets in `hydra.launcher` what follows from the sweep: `cards` for a job, 0 of simulated ones, its `name`."""
        with open_dict(launcher):
            for key, value in self.settings.items():
                if OmegaConf.select(launcher, key) is None:
                    OmegaConf.update(launcher, key, value, force_add=True)
            if self.gives_gpus and cards and all(OmegaConf.select(launcher, key) is None for key in self.gpu_keys):
                OmegaConf.update(launcher, self.gpu_keys[0], cards, force_add=True)
            if self.has_queue:
                launcher.name = name

    def places(self, launcher: DictConfig) -> dict[str, Any]:
        """What was said of where jobs are to run."""
        told = {key: OmegaConf.select(launcher, key) for key in self.where}
        return {key: plain(value) for key, value in told.items() if value is not None}


def plain(config: Any) -> Any:
    """A part of a configuration as plain data."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


_SLURM = Scheduler(
    "slurm",
    gives_gpus=True,
    has_queue=True,
    gpu_keys=("gpus_per_node", "gpus_per_task", "gres"),
    where=("partition", "constraint", "gres", "exclude", "additional_parameters"),
)
_RAY = Scheduler(
    "ray",
    gives_gpus=True,
    loses_all=True,
    gpu_keys=("ray.remote.num_gpus",),
    where=("ray.remote.resources", "ray.remote.accelerator_type", "ray.remote.label_selector", "ray.init.address"),
    # Ray would start what kills its worker four times, without a word.
    settings={"ray.remote.max_retries": 0},
)
_KNOWN = {
    "slurm": _SLURM,
    "submitit_slurm": _SLURM,
    "ray": _RAY,
    "joblib": Scheduler("joblib", loses_all=True),
}


def scheduler_of(launcher: str) -> Scheduler:
    """The launcher of that name; one that is not known is left to itself."""
    return _KNOWN.get(launcher, Scheduler(launcher))
