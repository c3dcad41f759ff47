"""From a command line to settings: the only door to hydra and omegaconf.

A sweep is composed once for each model and each device, not once for each combination: a catalogue of thousands of
cells is planned in seconds. Values of the other axes are typed by the structured config once each, then multiplied.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from bench.errors import BadInput, nearest
from bench.plan.settings import DeviceSettings, ModelSettings, Settings

_GROUPS = ("model", "device", "experiment")
_ADAPTER = TypeAdapter(Settings)
# Hydra reads the branch 4_25 as the number 425, and {bpw} as half a dictionary, unless they are quoted.
_REVISION = "model.revision"
_PLAIN_REVISION = re.compile(r"(?!null$)[\w.{}/@+-]+")
_KEYS = (
    *(f.name for f in fields(Settings)),
    *(f"model.{f.name}" for f in fields(ModelSettings)),
    *(f"device.{f.name}" for f in fields(DeviceSettings)),
)


def config_dir() -> Path:
    """The `conf` directory: inside an installed package, or beside it in the repository."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").exists():
            return candidate
    raise BadInput(f"no conf directory beside {package}; reinstall vram-bench")


def names(group: str) -> list[str]:
    """The names of a group of the catalogue, `model` or `device`."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def device_settings(name: str) -> DeviceSettings:
    """One file of conf/device, without composing anything."""
    plain = OmegaConf.to_container(OmegaConf.load(config_dir() / "device" / f"{name}.yaml"))
    return TypeAdapter(DeviceSettings).validate_python(plain)


def combinations(overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Every combination of a sweep's overrides, as plain data in the shape of `Settings`, `hydra.*` left out.

    Raises `BadInput` for what Hydra or the structured config refuses.
    """
    parsed = _parse(overrides)
    hydras = [str(override.input_line) for override in parsed if override.key_or_group.startswith("hydra")]
    mine = [override for override in parsed if not override.key_or_group.startswith("hydra")]
    found: list[dict[str, Any]] = []
    with _Composer():
        given = [str(override.input_line) for override in mine if not override.is_sweep_override()]
        defaults = _compose([*given, *hydras], with_hydra=True).hydra.sweeper.params or {}
        named = {override.key_or_group for override in mine}
        mine += _parse([f"{key}={values}" for key, values in defaults.items() if key not in named])
        fixed = [str(override.input_line) for override in mine if not override.is_sweep_override()]
        axes = {override.key_or_group: override for override in mine if override.is_sweep_override()}
        group_axes = {key: override for key, override in axes.items() if key in _GROUPS}
        value_axes = {key: override for key, override in axes.items() if key not in _GROUPS}
        groups = list(itertools.product(*(_choices(override) for override in group_axes.values())))
        for choice in groups:
            config = _compose(fixed + list(choice))
            typed = [_typed_values(config, override) for override in value_axes.values()]
            plain = _to_plain(config)
            for values in itertools.product(*typed):
                settings = {**plain}
                for key, value in zip(value_axes, values, strict=True):
                    _assign(settings, key, value)
                found.append(settings)
    return found


def validate(settings: dict[str, Any]) -> Settings:
    """The settings of one combination, within their ranges; raises `BadInput`."""
    try:
        return _ADAPTER.validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "unexpected_keyword_argument":
            raise BadInput(_unknown_key(key)) from error
        raise BadInput(f"{key}={first['input']}: {first['msg'].lower()}") from error


def launcher_override(overrides: Sequence[str]) -> str | None:
    """The name of the Hydra launcher that was asked for, if one was."""
    for override in _parse(overrides):
        if override.key_or_group == "hydra/launcher":
            return str(override.value())
    return None


def fold_lengths(overrides: Sequence[str]) -> list[str]:
    """The same overrides with `max_seq_len=a,b` as one list, so that a Hydra job has all lengths of its cell."""
    folded = []
    for override in _parse(overrides):
        if override.key_or_group == "max_seq_len" and override.is_sweep_override():
            folded.append(f"max_seq_len=[{','.join(_values(override))}]")
        else:
            folded.append(str(override.input_line))
    return folded


def _choices(override: Override) -> list[str]:
    return [f"{override.key_or_group}={value}" for value in _values(override)]


def _values(override: Override) -> list[str]:
    """The values of an axis, as Hydra writes them."""
    try:
        return list(override.sweep_string_iterator())
    except HydraException as error:
        raise BadInput(f"{override.input_line!r} names no values; list them: {override.key_or_group}=a,b") from error


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create()
    parsed: list[Override] = []
    for text in overrides:
        try:
            override = parser.parse_override(_quote_revisions(text))
        except HydraException as error:
            raise BadInput(f"{text!r} is no override; write key=value, or key=a,b for an axis") from error
        if override.is_delete():
            raise BadInput(f"{text!r}: no key can be taken away; give it another value")
        if not override.key_or_group:
            raise BadInput(f"{text!r} names no key; write key=value, or key=a,b for an axis")
        parsed.append(override)
    return parsed


def _quote_revisions(text: str) -> str:
    key, equals, value = text.partition("=")
    if key != _REVISION:
        return text
    values = [f'"{one}"' if _PLAIN_REVISION.fullmatch(one) else one for one in value.split(",")]
    return f"{key}{equals}{','.join(values)}"


class _Composer:
    """Hydra's compose API over the catalogue; nothing of Hydra's global state is left behind."""

    def __enter__(self) -> None:
        register_schema()
        GlobalHydra.instance().clear()
        self._context = initialize_config_dir(str(config_dir()), version_base="1.3", job_name="vram-bench")
        self._context.__enter__()

    def __exit__(self, *_: object) -> None:
        self._context.__exit__(None, None, None)
        GlobalHydra.instance().clear()


def register_schema() -> None:
    """Makes `Settings` known to Hydra as `base_schema`."""
    ConfigStore.instance().store(name="base_schema", node=Settings)


def _compose(overrides: list[str], with_hydra: bool = False) -> DictConfig:
    try:
        return compose("config", overrides=overrides, return_hydra_config=with_hydra)
    except MissingConfigException as error:
        raise BadInput(_missing_choice(overrides, error)) from error
    except (ConfigCompositionException, OmegaConfBaseException, ValueError) as error:
        raise BadInput(_explain(error)) from error


def _missing_choice(overrides: list[str], error: Exception) -> str:
    for override in overrides:
        group, _, name = override.lstrip("+").partition("=")
        if group in _GROUPS and name not in names(group):
            return f"unknown {group} {name!r}. {nearest(name, names(group))}"
        if group.startswith("hydra/"):
            return f"{override}: not installed; Hydra's plugins are packages (hydra-joblib-launcher, say)"
    return str(error).splitlines()[0]


def _explain(error: BaseException) -> str:
    """Hydra's message, from the error at its root, with the nearest key where a key is unknown."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    key = getattr(root, "full_key", None) or ""
    lines = str(root).splitlines() or [type(root).__name__]
    if "Could not append" in str(root):
        return "a key that exists needs no +; write key=value"
    if "is not in struct" in str(root) or "not in '" in lines[0] or "Key '" in lines[0]:
        key = key or lines[0].split("'")[1]
        return _unknown_key(key)
    return f"{key}: {lines[0]}" if key and key not in lines[0] else lines[0]


def _unknown_key(key: str) -> str:
    group, dot, _ = key.partition(".")
    if group == "hydra":
        return f"unknown key {key!r}; Hydra's own keys are listed by its documentation"
    siblings = [known for known in _KEYS if dot and known.startswith(f"{group}.")]
    if siblings:
        return f"unknown key {key!r}. Known: {', '.join(siblings)}."
    return f"unknown key {key!r}. {nearest(key, (known for known in _KEYS if '.' not in known))}"


def _typed_values(config: DictConfig, override: Override) -> list[Any]:
    """The values of an axis as the structured config types them."""
    key, values = override.key_or_group, []
    for text in _values(override):
        one = _parse([f"{key}={text}"])[0]
        scratch = copy.deepcopy(config)
        try:
            OmegaConf.update(scratch, key, one.value(), merge=True)
        except OmegaConfBaseException as error:
            raise BadInput(_explain(error)) from error
        values.append(_plain_value(OmegaConf.select(scratch, key)))
    return values


def _to_plain(config: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise BadInput(_explain(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _plain_value(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        settings[parent] = {**settings[parent]}
        settings = settings[parent]
    settings[last] = value
