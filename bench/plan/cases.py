"""From a command line to cases and cells: the one place that knows which combinations can be measured at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import BadInput
from bench.plan import config
from bench.plan.devices import DEFAULT_SIMULATED, resolve_device
from bench.plan.models import native_max_seq_len, resolve_model
from bench.plan.settings import AUTO, HEAD_BITS, MIN_SEQ_LEN, Settings
from bench.plan.units import parse_size
from bench.records import Case, Cell, DeviceSpec, ModelSpec

_FP16_BPW, _MAX_EXL2_BPW = 16.0, 8.0
_OF_A_CHECKPOINT = ("bpw", "head_bits")
_HOW_IT_IS_RUN = ("results_dir", "timeout_s", "jobs", "rerun", "run_id")


@dataclass(frozen=True)
class Sweep:
    """What one command asks for, in order, and how to run it (the settings that are no axes).

    `cases` are to be run; for `cells` (max_seq_len=auto) the boundary is to be found.
    """

    cases: list[Case]
    cells: list[Cell]
    settings: Settings


def plan_sweep(overrides: Sequence[str]) -> Sweep:
    """Everything that `overrides` ask for, all of it checked. Raises `BadInput`."""
    combinations = config.validate_all(config.combinations(overrides))
    for key in _HOW_IT_IS_RUN:
        values = {getattr(settings, key) for settings in combinations}
        if len(values) > 1:
            raise BadInput(f"{key}={','.join(sorted(map(str, values)))}: one sweep is run in one way; give one value")
    # Combinations of one model or device share its settings: each is looked up once, found by their identity.
    models: dict[tuple[int, float], ModelSpec] = {}
    devices: dict[int, DeviceSpec] = {}
    asked: dict[Case | Cell, None] = {}  # in order, each once
    for settings in combinations:
        model_key, device_key = (id(settings.model), settings.bpw), id(settings.device)
        if model_key not in models:
            models[model_key] = resolve_model(settings.model, settings.bpw)
        if device_key not in devices:
            devices[device_key] = resolve_device(settings.device)
        asked.update(dict.fromkeys(_work_on(settings, models[model_key], devices[device_key])))
    cases = [work for work in asked if isinstance(work, Case)]
    return Sweep(cases, [work for work in asked if isinstance(work, Cell)], combinations[0])


def plan_checkpoint(overrides: Sequence[str]) -> Case:
    """The model and bits of one checkpoint that is to be made; of the case that it returns the rest means nothing.

    Raises `BadInput`.
    """
    for text in overrides:
        key = text.partition("=")[0]
        if key.partition(".")[0] != "model" and key not in _OF_A_CHECKPOINT:
            raise BadInput(f"{text!r}: a checkpoint depends on model, {' and '.join(_OF_A_CHECKPOINT)} alone")
    settings, *more = config.validate_all(config.combinations([*overrides, f"device={DEFAULT_SIMULATED}"]))
    if more:
        raise BadInput(f"{' '.join(overrides)}: one checkpoint is made at a time; give each key one value")
    model = resolve_model(settings.model, settings.bpw)
    (cell,) = _work_on(settings, model, resolve_device(settings.device))
    assert isinstance(cell, Cell)
    return cell.longest


def work_of(settings: Settings) -> list[Case | Cell]:
    """What one combination asks for: a case for each of its lengths, the cell for `auto`. Raises `BadInput`."""
    return _work_on(settings, resolve_model(settings.model, settings.bpw), resolve_device(settings.device))


def _work_on(settings: Settings, model: ModelSpec, device: DeviceSpec) -> list[Case | Cell]:
    if device.kind == "cuda" and not model.has_weights:
        raise BadInput(
            f"model={model.name}: a real GPU needs EXL2 weights; give them with model=local model.path=DIR "
            f"or model=hub model.repo=ORG/NAME, or simulate a card with device={DEFAULT_SIMULATED}"
        )
    bpw = settings.bpw if model.bpw is None else model.bpw  # weights that are there have the bits that they have
    if model.bpw is None and _MAX_EXL2_BPW < bpw < _FP16_BPW:
        raise BadInput(f"bpw={bpw:g}: EXL2 weights have 2.0 to 8.0 bits; 16 is unquantised")
    if settings.head_bits not in HEAD_BITS:
        raise BadInput(f"head_bits={settings.head_bits}: allowed are {', '.join(map(str, HEAD_BITS))}")
    vram_limit_bytes = _vram_limit(settings.vram_limit, device)
    limited = vram_limit_bytes is not None
    native = native_max_seq_len(model.config)
    cell = Cell(
        Case(
            model=model,
            device=device,
            bpw=bpw,
            # Weights that are there have their own head, and an unquantised model has none of these.
            head_bits=None if model.has_weights or bpw == _FP16_BPW else settings.head_bits,
            cache=settings.cache.name,
            lazy=settings.lazy,
            attention=settings.attention.name,
            max_seq_len=native,
            batch_size=settings.batch_size,
            max_input_len=settings.max_input_len,
            vram_limit_bytes=vram_limit_bytes,
            vram_limit_by=settings.vram_limit_by.name if limited and device.kind == "cuda" else None,
            repeats=settings.repeats if device.kind == "cuda" else 1,
        )
    )
    lengths = _lengths(settings.max_seq_len, native, model.name)
    return [cell if length == AUTO else cell.at(length) for length in lengths]


def _lengths(value: Any, native: int, model: str) -> list[Any]:
    lengths = value if isinstance(value, list) else [value]
    if not lengths:
        raise BadInput(f"max_seq_len=[]: give at least one number of tokens from {MIN_SEQ_LEN} on, or {AUTO}")
    for length in lengths:
        if length == AUTO:
            continue
        if isinstance(length, bool) or not isinstance(length, int) or length < MIN_SEQ_LEN:
            raise BadInput(f"max_seq_len={length}: give a number of tokens from {MIN_SEQ_LEN} on, or {AUTO}")
        if length > native:
            raise BadInput(f"max_seq_len={length}: {model} goes up to its own limit of {native} tokens")
    return lengths


def _vram_limit(value: Any, device: DeviceSpec) -> int | None:
    if value is None:
        return None
    try:
        limit_bytes = parse_size(value)
    except ValueError as error:
        raise BadInput(f"vram_limit={value}: {error}") from None
    if limit_bytes > device.total_memory_bytes:
        raise BadInput(f"vram_limit={value}: {device.name} itself has {device.total_memory_bytes / (1 << 30):.2f} GiB")
    return limit_bytes
