"""From a command line to cases and searches; combinations that cannot be measured are refused here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

from bench.config import compose as config
from bench.config.devices import (
    DEFAULT_SIMULATED,
    resolve_devices,
    resolve_machines,
    what_is_free,
    why_simulated,
)
from bench.config.draft_models import draft_limit, draft_model_of, require_length
from bench.config.echo import as_typed
from bench.config.lengths import MIN_SEQ_LEN, Lengths, is_plausible, lengths_of_model
from bench.config.limits import limits_of_cards
from bench.config.models import engine_of_weights, resolve_model
from bench.config.served import (
    draft_tokens_of,
    fewer_jobs,
    longest_served,
    require_lengths,
    require_pages,
    require_scenario,
)
from bench.config.servers import keys_of, server_of
from bench.config.settings import AUTO, DeviceSettings, Settings
from bench.config.splits import require_room_beside_reserves, split_of
from bench.config.units import number_in_words
from bench.config.weights import bits_of, head_bits_of
from bench.core.case import MAX_ATTENTION_SIZE, MAX_SEQ_LEN, PAGE, Axis, Case, ModelSpec, Search
from bench.core.columns import WEIGHTS
from bench.core.device import DeviceSpec
from bench.core.errors import BadInput
from bench.core.machine import Machine
from bench.engines.base import EngineSpec
from bench.engines.registry import engine_of, rules_of

_HOW_IT_IS_RUN = (
    "results_dir",
    "timeout_s",
    "phase_timeout_s",
    "jobs",
    "allow_foreign",
    "rerun",
    "retry",
    "run_id",
    "auto_up_to",
)
Machines = Callable[[DeviceSettings], list[tuple[DeviceSpec, ...]]]
# The keys that a case has as they are typed; `_work_on` says which of them depend on more.
_AS_ASKED = [field.name for field in fields(Case) if field.name in {key.name for key in fields(Settings)}]


@dataclass(frozen=True)
class Sweep:
    """What one command asks for, in order, and how to run it (the settings that are no axes).

    `cases` are to be run; for `searches` (max_seq_len=auto, cache_size=auto) the boundary is to be found.
    """

    cases: list[Case]
    searches: list[Search]
    settings: Settings


def plan_sweep(overrides: Sequence[str], machines_of: Machines = resolve_machines) -> Sweep:
    """Everything that `overrides` ask for, all of it checked, on the cards of `machines_of`. Raises `BadInput`."""
    with as_typed(overrides):
        return _plan_sweep(overrides, machines_of)


def _plan_sweep(overrides: Sequence[str], machines_of: Machines) -> Sweep:
    combinations = config.validate_all(config.combinations(overrides))
    for key in _HOW_IT_IS_RUN:
        values = {getattr(settings, key) for settings in combinations}
        if len(values) > 1:
            raise BadInput(f"{key}={','.join(sorted(map(str, values)))}: one sweep is run in one way; give one value")
    # Combinations of one model or device share its settings: each is looked up once, found by their identity.
    models: dict[tuple[int, float, str], tuple[ModelSpec, EngineSpec]] = {}
    machines: dict[int, list[tuple[DeviceSpec, ...]]] = {}
    asked: dict[Case | Search, None] = {}  # in order, each once
    told: dict[str, None] = {}
    for settings in combinations:
        model_key, device_key = (id(settings.model), settings.bpw, settings.engine.name), id(settings.device)
        if model_key not in models:
            models[model_key] = _model_of(settings)
            told.update(dict.fromkeys(_unused_bits(overrides, settings, models[model_key][0])))
        if device_key not in machines:
            machines[device_key] = machines_of(settings.device)
            if settings.device.kind == AUTO and machines[device_key][0][0].is_simulated:
                print(f"vram-bench: {why_simulated()}", file=sys.stderr)
        if hint := fewer_jobs(settings):
            told[hint] = None
        for devices in machines[device_key]:
            if settings.vram_limit is None:
                told.update(dict.fromkeys(what_is_free(devices)))
            asked.update(dict.fromkeys(_work_on(settings, *models[model_key], devices)))
    for text in told:
        print(f"vram-bench: {text}", file=sys.stderr)
    cases = [work for work in asked if isinstance(work, Case)]
    return Sweep(cases, [work for work in asked if isinstance(work, Search)], combinations[0])


def _unused_bits(overrides: Sequence[str], settings: Settings, model: ModelSpec) -> Iterator[str]:
    """What was typed of bits, where weights that are there have their own; not what names a revision."""
    if model.bpw is None:
        return
    used = ("bpw",) if "{bpw}" in (settings.model.revision or "") else ()
    unused = [text for text in overrides if (key := text.partition("=")[0]) in WEIGHTS and key not in used]
    if unused:
        yield f"{' '.join(unused)} not used: the weights of {model.name} are there, and have {model.bpw:.4g} bpw"


def plan_checkpoint(overrides: Sequence[str]) -> Case:
    """A case whose model, `bpw` and `head_bits` are those of the checkpoint to be made; its other fields are defaults.

    Raises `BadInput`.
    """
    for text in overrides:
        key = text.partition("=")[0]
        if key.startswith("hydra."):
            continue
        if key.partition(".")[0] != "model" and key not in (*WEIGHTS, "engine"):
            raise BadInput(f"{text!r}: a checkpoint depends on model, {', '.join(WEIGHTS)} and engine alone")
    if not any(text.startswith(("model=", "model.path=")) for text in overrides):
        raise BadInput(
            "which model? model=NAME (`vram-bench list models`), model=local model.path=DIR, "
            "or model=hub model.repo=ORG/NAME"
        )
    unused = [f"device={DEFAULT_SIMULATED}", f"max_seq_len={PAGE}"]
    with as_typed(overrides):
        settings, *more = config.validate_all(config.combinations([*overrides, *unused]))
    if more:
        raise BadInput(f"{' '.join(overrides)}: one checkpoint is made at a time; give each key one value")
    model, engine = _model_of(settings)
    if not engine.makes_checkpoints:
        raise BadInput(f"engine={engine.name}: no {engine.weights.quantised} checkpoints can be made yet")
    (case,) = _work_on(settings, model, engine, resolve_devices(settings.device))
    assert isinstance(case, Case)
    return case


def plan_self_test(overrides: Sequence[str]) -> Case:
    """A case whose devices, engine and limits `overrides` ask for; nothing else of it counts. Raises `BadInput`.

    Its segments are native, whatever the engine has PyTorch use: sizes are known of those.
    """
    for text in overrides:
        key = text.partition("=")[0]
        if key.partition(".")[0] not in ("device", "hydra") and key not in ("engine", "vram_limit"):
            raise BadInput(f"{text!r}: a self-test depends on device, engine and vram_limit alone")
    nothing = ["model=tinyllama_1_1b", f"max_seq_len={PAGE}"]
    with as_typed(overrides):
        settings, *more = config.validate_all(config.combinations([*nothing, *overrides]))
    if more:
        raise BadInput(f"{' '.join(overrides)}: one machine is tested at a time; give each key one value")
    devices = resolve_devices(settings.device)
    if settings.device.kind == AUTO and devices[0].is_simulated:
        print(f"vram-bench: {why_simulated()}", file=sys.stderr)
    model, engine = _model_of(settings)
    limits_bytes = limits_of_cards(settings.vram_limit, devices)
    limited = any(limit is not None for limit in limits_bytes)
    return Case(
        model=model,
        device=devices[0],
        more_devices=devices[1:],
        bpw=settings.bpw,
        head_bits=None,
        cache=next(iter(engine.caches)),
        lazy=False,
        attention=AUTO,
        max_seq_len=PAGE,
        batch_size=1,
        max_input_len=PAGE,
        engine=engine.name,
        vram_limits_bytes=limits_bytes if limited else None,
        vram_limit_by=settings.vram_limit_by.name if limited and not devices[0].is_simulated else None,
    )


def work_of(settings: Settings) -> list[Case | Search]:
    """What one combination asks for: a case for each of its lengths, the search for `auto`. Raises `BadInput`."""
    return _work_on(settings, *_model_of(settings), resolve_devices(settings.device))


def _model_of(settings: Settings) -> tuple[ModelSpec, EngineSpec]:
    """The model, and the engine that runs it: with engine=auto that of its weights."""
    name = settings.engine.name
    if name == AUTO:
        name = engine_of_weights(settings.model, settings.bpw)
    return resolve_model(settings.model, settings.bpw, name), engine_of(name)


def _work_on(
    settings: Settings, model: ModelSpec, engine: EngineSpec, devices: tuple[DeviceSpec, ...]
) -> list[Case | Search]:
    device, *more_devices = devices
    if not device.is_simulated and not model.has_weights:
        raise BadInput(
            f"model={model.name}: a real GPU needs {engine.weights.quantised} weights; give them with model=local "
            f"model.path=DIR or model=hub model.repo=ORG/NAME, or simulate a card with device={DEFAULT_SIMULATED}"
        )
    bpw = bits_of(model, settings.bpw, engine)
    cache = _require_known(settings, engine)
    require_scenario(settings, engine)
    if len(devices) > 1 and not engine.several_cards:
        other = "" if model.has_weights else ", or another engine"  # which cannot load them
        raise BadInput(
            f"device={Machine(devices).name}: {engine.title} is not run on several cards here; give one of them{other}"
        )
    draft_model = draft_model_of(settings, model, engine, devices)
    limits_bytes = limits_of_cards(settings.vram_limit, devices)
    server = server_of(settings, engine)
    split, lazy = split_of(settings, len(devices), server)
    require_room_beside_reserves(settings.reserve_vram, devices)
    limited = any(limit is not None for limit in limits_bytes)
    alike = len(set(limits_bytes)) == 1
    known = lengths_of_model(model, engine.name)
    lengths = _lengths(settings.max_seq_len, known, model.name)
    end = None
    searches_caches = settings.cache_size == AUTO
    if searches_caches:
        require_lengths(lengths)
    elif AUTO in lengths:
        end = longest_served(settings, _search_end(settings.auto_up_to, known, model.name, engine))
        end = min(end, draft_limit(draft_model, engine) or end) // engine.context_step * engine.context_step
    elif settings.auto_up_to is not None:
        raise BadInput(
            f"auto_up_to={settings.auto_up_to}: it ends a search, and there is none without max_seq_len=auto or "
            "cache_size=auto"
        )
    asked = {name: _plain(getattr(settings, name)) for name in _AS_ASKED}
    case = Case(
        **asked
        | {
            "model": model,
            "device": device,
            "more_devices": tuple(more_devices),
            "engine": engine.name,
            "cache": cache,
            "allocator": engine.allocator if settings.allocator.name == AUTO else settings.allocator.name,
            "split": split,
            "num_draft_tokens": draft_tokens_of(settings, engine),
            "draft_model": draft_model,
            "cache_size": _largest_cache(settings.auto_up_to, known, model.name)
            if searches_caches
            else settings.cache_size,
            "lazy": lazy,
            "bpw": bpw,
            "head_bits": head_bits_of(model, bpw, settings.head_bits),
            "max_seq_len": end or MIN_SEQ_LEN,
            "vram_limit_bytes": limits_bytes[0] if alike else None,
            "vram_limits_bytes": None if alike else limits_bytes,
            "vram_limit_by": settings.vram_limit_by.name if limited and not device.is_simulated else None,
            "repeats": 1 if device.is_simulated else settings.repeats,
            **keys_of(settings, server),
        }
    )
    default = known.engine_default
    if known.is_hard and default is not None and not is_plausible(default) and not model.has_weights:
        raise BadInput(
            f"model={model.name}: {known.engine_key} in its config.json is {number_in_words(default)}, and it has a "
            f"learned position for each of them; write {MIN_SEQ_LEN} to {MAX_SEQ_LEN:,} there"
        )
    for length in lengths:
        if length != AUTO and length % engine.context_step:
            raise BadInput(_between_steps(length, engine))
    works: list[Case | Search] = [
        Search(case) if length == AUTO else replace(case, max_seq_len=length) for length in lengths
    ]
    if searches_caches:
        works = [Search(replace(case, max_seq_len=length), Axis.CACHE_SIZE) for length in lengths]
    for work in sorted(works, key=lambda work: -work.longest.max_seq_len):
        require_pages(work)
        require_length(draft_model, work.longest.max_seq_len, engine)
        if reason := rules_of(engine.name).refusal(work.longest):
            raise BadInput(reason)
    return works


def _between_steps(length: int, engine: EngineSpec) -> str:
    """Of a length that is no whole number of pages of an engine that has no others."""
    step = engine.context_step
    near = [length // step * step, -(-length // step) * step]
    allowed = " or ".join(str(each) for each in near if each)
    return f"max_seq_len={length}: {engine.title} makes caches of whole pages of {step} tokens; give {allowed}"


def _require_known(settings: Settings, engine: EngineSpec) -> str:
    """The cache by the engine's own name for it. Raises `BadInput` for values that are another engine's."""
    cache = engine.cache_synonyms.get(settings.cache, str(settings.cache))
    attentions = (AUTO, *engine.attentions)
    for key, value, allowed, in_words in (
        ("head_bits", settings.head_bits, engine.head_bits, ", ".join(map(str, engine.head_bits))),
        ("cache", cache, engine.caches, engine.caches_in_words),
        ("attention", settings.attention.name, attentions, ", ".join(attentions)),
    ):
        if value not in allowed:
            raise BadInput(f"{key}={value}: allowed with {engine.title} are {in_words}")
    if not engine.has_max_attention_size and settings.max_attention_size != MAX_ATTENTION_SIZE:
        raise BadInput(
            f"max_attention_size={settings.max_attention_size}: {engine.title} has no such bound; leave it out"
        )
    return cache


def _plain(value: Any) -> Any:
    """The name of a member of an enum; anything else as it is."""
    return value.name if isinstance(value, Enum) else value


def _lengths(value: Any, known: Lengths, model: str) -> list[Any]:
    """The lengths asked for, each a number of tokens or `auto`. Lengths beyond the model's own limit are allowed."""
    lengths = value if isinstance(value, list) else [value]
    if not lengths:
        raise BadInput(f"max_seq_len=[]: {_allowed_tokens()}, or {AUTO}")
    return [
        length if length == AUTO else _tokens("max_seq_len", length, known, model, f", or {AUTO}") for length in lengths
    ]


def _search_end(value: Any, known: Lengths, model: str, engine: EngineSpec) -> int:
    """The longest length of a search: the model's own limit, or `auto_up_to`, in whole pages."""
    if value is None:
        if known.engine_default is not None and not is_plausible(known.engine_default):
            raise BadInput(
                f"max_seq_len={AUTO}: {known.engine_key} in the config.json of {model} is "
                f"{number_in_words(known.engine_default)}, and a context has {MIN_SEQ_LEN} to {MAX_SEQ_LEN:,} tokens; "
                "give max_seq_len=N, or auto_up_to=N to search up to there"
            )
        end = known.limit or engine.default_length  # where the engine refuses config.json, the first case reports it
        if end is None:
            raise BadInput(
                f"max_seq_len={AUTO}: the config.json of {model} names no length, and {engine.title} has no default; "
                "give max_seq_len=N, or auto_up_to=N to search up to there"
            )
        return end // engine.context_step * engine.context_step or engine.context_step
    end = _tokens("auto_up_to", value, replace(known, is_hard=False), model)
    if known.limit is not None and (end == known.limit or (known.is_hard and end > known.limit)):
        return known.limit // engine.context_step * engine.context_step or engine.context_step
    return -(-end // PAGE) * PAGE


def _largest_cache(auto_up_to: Any, known: Lengths, model: str) -> int:
    """Where a search for the largest cache ends: nothing but the card ends it, unless `auto_up_to` does."""
    if auto_up_to is None:
        return MAX_SEQ_LEN
    return -(-_tokens("auto_up_to", auto_up_to, replace(known, is_hard=False), model) // PAGE) * PAGE


def _tokens(key: str, value: Any, known: Lengths, model: str, otherwise: str = "") -> int:
    """A number of tokens as it was given for `key`."""
    if isinstance(value, bool) or not isinstance(value, int) or not is_plausible(value):
        raise BadInput(f"{key}={value}: {_allowed_tokens()}{otherwise}")
    if known.is_hard and known.limit is not None and value > known.limit:
        raise BadInput(f"{key}={value}: {model} has learned {known.limit:,} positions, and there are none beyond")
    return value


def _allowed_tokens() -> str:
    return f"give a number of tokens from {MIN_SEQ_LEN} to {MAX_SEQ_LEN:,}"
