"""Ray, started or joined before jobs are sent to it; the only door to ray."""

from __future__ import annotations

from typing import Any

from bench.core.errors import BadInput, first_line


def start(settings: dict[str, Any], cards: float) -> None:
    """Starts Ray here, or joins the cluster at `address`. Raises `BadInput` where a job would wait for ever."""
    import ray

    if settings.get("address") is None:
        # A monitor that nobody looks at, and room for objects, of which there are none.
        settings = {"include_dashboard": False, "object_store_memory": 78_643_200, **settings}
    try:
        ray.init(**settings)
    except (ValueError, ConnectionError, RuntimeError) as error:
        raise BadInput(f"hydra/launcher=ray: Ray does not start ({first_line(error)})") from None
    there = float(ray.cluster_resources().get("GPU", 0))
    if cards > there:
        ray.shutdown()
        raise BadInput(
            f"hydra/launcher=ray: a job asks for {cards:g} GPU{'' if cards == 1 else 's'}, and Ray counts {there:g}; "
            "+hydra.launcher.ray.init.num_gpus=N says how many there are"
        )


def stop() -> None:
    """Ends what `start` has started, with all that still runs there."""
    import ray

    ray.shutdown()
