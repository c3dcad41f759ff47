"""Where this process runs, as the scheduler that started it says: read from what that left in the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from bench.core.place_columns import PLACE


def place(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """The columns `PLACE` of a row that is measured here; all null where no scheduler has started this process."""
    return {**dict.fromkeys(PLACE), **(_of_ray() or _of_slurm(environment))}


def _of_slurm(told: Mapping[str, str]) -> dict[str, str | None]:
    if "SLURM_JOB_ID" not in told:
        return {}
    array, task = told.get("SLURM_ARRAY_JOB_ID"), told.get("SLURM_ARRAY_TASK_ID")
    return {
        "scheduler": "slurm",
        "scheduler_node": told.get("SLURMD_NODENAME"),
        # In an array each task has a number of its own, but for the last, which has that of the array.
        "scheduler_job": f"{array}_{task}" if array and task else told["SLURM_JOB_ID"],
        "scheduler_step": told.get("SLURM_STEP_ID"),
        "scheduler_gpus": told.get("SLURM_STEP_GPUS") or told.get("SLURM_JOB_GPUS"),
    }


def _of_ray() -> dict[str, str | None]:
    """Only where this process is one of Ray's workers: who asks for it would start it elsewhere."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return {}
    context = ray.get_runtime_context()
    task = context.get_task_id()
    if task is None:
        return {}
    return {
        "scheduler": "ray",
        "scheduler_node": context.get_node_id(),
        "scheduler_job": context.get_job_id(),
        "scheduler_step": task,
        "scheduler_gpus": ",".join(map(str, ray.get_gpu_ids())) or None,
    }
