"""Cards: the ones in this machine, and the catalogue's simulated ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, replace

from bench import nvml
from bench.config.compose import device_settings
from bench.config.settings import ALL, AUTO, MACHINE, DeviceSettings
from bench.core.device import DeviceSpec
from bench.core.errors import BadInput
from bench.core.machine import machine_name

# What device=auto simulates where there is no GPU.
DEFAULT_SIMULATED = "rtx_4090"
_GIB = 1 << 30
_TOLD_BYTES = 64 << 20  # less than that a driver holds by itself
_NO_NAME = re.compile(r"[^a-z0-9]+")  # a card's name becomes part of file names: "Quadro RTX 6000/8000"


# The size of a CUDA context where the card's file has none: a line through an RTX 3060 and an RTX 4090, which gives an
# RTX 3090, RTX 5090 and H100 to about 11 MiB, too (sources in conf/device). It goes by multiprocessors and the threads
# that each can hold.
_CONTEXT_BYTES, _CONTEXT_BYTES_PER_SM = 43_515_904, 2_831_155
_USUAL_SMS, _USUAL_THREADS = 100, 1536
# By compute capability, where they are not the usual.
_THREADS = {"6.0": 2048, "6.1": 2048, "7.0": 2048, "7.5": 1024, "8.0": 2048, "9.0": 2048, "10.0": 2048}


def _assumed_context_bytes(settings: DeviceSettings) -> int:
    threads = _THREADS.get(settings.compute_capability or "", _USUAL_THREADS)
    sms = settings.multi_processor_count or _USUAL_SMS
    return _CONTEXT_BYTES + _CONTEXT_BYTES_PER_SM * sms * threads // _USUAL_THREADS


def find_gpus() -> tuple[list[nvml.Gpu], str | None]:
    """The NVIDIA GPUs that this user may take, and where there are none the reason."""
    try:
        gpus = nvml.gpus()
    except nvml.NoDriver as error:
        return [], str(error)
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:  # the GPUs that a scheduler has assigned: indices, or prefixes of UUIDs
        names = [name.strip() for name in allowed.split(",") if name.strip()]
        gpus = [gpu for name in names for gpu in gpus if name == str(gpu.index) or gpu.uuid.startswith(name)]
        return gpus, None if gpus else f"CUDA_VISIBLE_DEVICES={allowed} leaves none"
    return gpus, None if gpus else "the driver lists no GPU"


def why_simulated() -> str:
    """The simulated card that device=auto takes where there is no GPU, and the reason."""
    return f"device=auto: no NVIDIA GPU ({find_gpus()[1]}), so {DEFAULT_SIMULATED} is simulated"


def what_is_free(devices: Sequence[DeviceSpec]) -> list[str]:
    """A line for each real card of which others hold some: without `vram_limit`, what is free is what there is."""
    return [
        f"GPU {device.index}: others hold {device.held_bytes / _GIB:.2f} of {device.total_memory_bytes / _GIB:.2f} "
        "GiB; predictions are for what is free"
        for own in devices
        for device in (own, *own.equals)
        if device.held_bytes is not None and device.held_bytes > _TOLD_BYTES
    ]


def resolve_machines(settings: DeviceSettings) -> list[tuple[DeviceSpec, ...]]:
    """What `settings` name, each by its cards: one machine, or with `device.index=all` one for each kind of GPU.

    GPUs are of one kind where all but the UUID is the same; they share its work. Raises `BadInput`.
    """
    if settings.index != ALL:
        return [resolve_devices(settings)]
    _require_gpus(settings)
    kinds: dict[DeviceSpec, list[DeviceSpec]] = {}
    for card in _real_cards(range(len(find_gpus()[0]))):
        kinds.setdefault(replace(card, index=None, uuid=None, held_bytes=None), []).append(card)
    return [(replace(first, equals=tuple(others)),) for first, *others in kinds.values()]


def resolve_devices(settings: DeviceSettings) -> tuple[DeviceSpec, ...]:
    """The cards that `settings` name, mostly one. Raises `BadInput` where there is no such GPU."""
    if isinstance(settings.index, str):
        _require_gpus(settings)
        raise BadInput("device.index=all: one GPU is asked for here; give its number")
    indices = settings.index
    if settings.kind == AUTO and not find_gpus()[0]:
        if len(indices) > 1:
            raise BadInput(f"{_typed_index(settings)}: {_no_gpu()}")
        settings = device_settings(DEFAULT_SIMULATED)
    if settings.kind in ("cuda", AUTO):
        return tuple(_real_cards(indices))
    if settings.kind == MACHINE:
        _require_cards_alone(settings)
        return tuple(_simulated_card(card) for card in settings.cards or ())
    if settings.kind != "simulated":
        raise BadInput(f"device.kind={settings.kind}: allowed are simulated, cuda and auto")
    _require_no_gpus(settings, settings.name)
    return (_simulated_card(settings),)


def _real_cards(indices: Sequence[int]) -> Iterator[DeviceSpec]:
    gpus, _ = find_gpus()
    if not gpus:
        raise BadInput(f"device=cuda: {_no_gpu()}")
    asked = "+".join(map(str, indices))
    if len(set(indices)) < len(indices):
        raise BadInput(f"device.index={asked}: a GPU is there twice; name each once")
    for index in indices:
        if index >= len(gpus):
            raise BadInput(f"device.index={asked}: {_which(len(gpus))}")
        gpu = gpus[index]
        yield DeviceSpec(
            name=_NO_NAME.sub("_", gpu.name.lower()).strip("_"),
            kind="cuda",
            full_name=gpu.name,
            total_memory_bytes=gpu.total_bytes,
            compute_capability=gpu.compute_capability,
            index=gpu.index,
            uuid=gpu.uuid,
            driver_version=gpu.driver_version,
            held_bytes=_held_bytes(gpu),
        )


def _held_bytes(gpu: nvml.Gpu) -> int | None:
    try:
        return nvml.read(gpu.uuid).used_bytes
    except nvml.NoDriver:
        return None


def _no_gpu() -> str:
    return f"no NVIDIA GPU ({find_gpus()[1]}); device={DEFAULT_SIMULATED} simulates one"


def _typed_index(settings: DeviceSettings) -> str:
    return f"device.index={settings.index if settings.index == ALL else '+'.join(map(str, settings.index))}"


def _require_gpus(settings: DeviceSettings) -> None:
    """Refuses `device.index=all` for a device that is no GPU of this machine."""
    if settings.kind not in ("cuda", AUTO):
        _require_no_gpus(settings, machine_name([card.name for card in settings.cards or [settings]]))
    if not find_gpus()[0]:
        raise BadInput(f"{_typed_index(settings)}: {_no_gpu()}")


def _require_no_gpus(settings: DeviceSettings, called: str) -> None:
    """Refuses the numbers of several GPUs for cards that are simulated: real ones and simulated ones are no machine."""
    if settings.index == ALL or len(settings.index) > 1:
        typed = _typed_index(settings)
        raise BadInput(f"{typed}: {called} is simulated; GPUs of this machine are device=cuda {typed}")


def _which(count: int) -> str:
    """The numbers that there are; of a part of the machine's GPUs, those within it."""
    numbers = "one GPU, number 0" if count == 1 else f"{count} GPUs, numbers 0 to {count - 1}"
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"this machine has {numbers}" if allowed is None else f"CUDA_VISIBLE_DEVICES={allowed} leaves {numbers}"


def _require_cards_alone(machine: DeviceSettings) -> None:
    """Refuses a key that does not say which of the cards it is about."""
    called = machine_name([card.name for card in machine.cards or ()])
    _require_no_gpus(machine, called)
    for each in fields(DeviceSettings):
        if each.name in ("kind", "cards"):
            continue
        value = getattr(machine, each.name)
        usual = each.default if each.default_factory is MISSING else each.default_factory()
        if value != (called if each.name == "name" else usual):
            raise BadInput(
                f"device.{each.name}={value}: of which card of {called}? Write a file for that card, and name it "
                "in its place: device=./CARD.yaml+rtx_3090"
            )


def _simulated_card(settings: DeviceSettings) -> DeviceSpec:
    if settings.total_memory_bytes is None:
        raise BadInput(f"device={settings.name}: total_memory_bytes is missing, as in total_memory_bytes: 10GiB")
    return DeviceSpec(
        name=settings.name,
        kind="simulated",
        full_name=settings.full_name or settings.name,
        total_memory_bytes=settings.total_memory_bytes,
        compute_capability=settings.compute_capability,
        multi_processor_count=settings.multi_processor_count,
        memory_bandwidth_bytes_per_s=settings.memory_bandwidth_bytes_per_s,
        context_bytes=_assumed_context_bytes(settings) if settings.context_bytes is None else settings.context_bytes,
        context_basis=settings.context_basis,
        workspace_bytes=settings.workspace_bytes,
        workspace_basis=settings.workspace_basis,
        first_forward_bytes=settings.first_forward_bytes,
        first_forward_basis=settings.first_forward_basis,
    )
