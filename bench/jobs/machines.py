"""Which cards a job is planned on, where a scheduler will choose them, and which it was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.config.devices import resolve_devices, resolve_machines
from bench.config.settings import ALL, AUTO, DeviceSettings
from bench.core.case import Case, Search
from bench.core.device import DeviceSpec
from bench.core.errors import BadInput
from bench.jobs.cells import assigned, unassigned
from bench.jobs.schedulers import Scheduler

_GIB = 1 << 30


def machines_for(scheduler: Scheduler) -> Callable[[DeviceSettings], list[tuple[DeviceSpec, ...]]]:
    """What `plan_sweep` is to take for the cards that settings name. Raises `BadInput`."""

    def machines_of(settings: DeviceSettings) -> list[tuple[DeviceSpec, ...]]:
        is_real = settings.kind == "cuda" or (settings.kind == AUTO and not resolve_devices(settings)[0].is_simulated)
        if is_real and settings.index == ALL:
            said = "it is the launcher that gives a job its GPU; leave out all"
            raise BadInput(f"hydra/launcher={scheduler.name}: {said}")
        if not (is_real and scheduler.gives_gpus):
            return resolve_machines(settings)
        assert not isinstance(settings.index, str)
        count = len(settings.index)
        if list(settings.index) != list(range(count)):
            asked = "+".join(map(str, settings.index))
            raise BadInput(
                f"device.index={asked}: it is {scheduler.name} that chooses the GPUs of a job; say how many: "
                f"device.index={'+'.join(map(str, range(count)))}"
            )
        return [unassigned(count)]

    return machines_of


def on_given_cards(works: Sequence[Case | Search]) -> list[Case | Search]:
    """`works` on the GPUs that this process sees, in their order. Raises `BadInput` where those do not do."""
    count = len(works[0].longest.devices)
    devices = resolve_devices(DeviceSettings(kind="cuda", index=list(range(count))))
    placed = [assigned(work, devices) for work in works]
    for work in placed:
        case = work.longest
        for limit_bytes, card in zip(case.limits_bytes, case.devices, strict=True):
            if limit_bytes is not None and limit_bytes > card.total_memory_bytes:
                raise BadInput(
                    f"vram_limit={limit_bytes / _GIB:.2f} GiB: the job was given {card.full_name}, which has "
                    f"{card.total_memory_bytes / _GIB:.2f} GiB"
                )
    return placed
