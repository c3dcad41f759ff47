"""From a command line to settings: the only door to hydra and omegaconf.

Hydra takes some 50 ms to compose, so it is not asked for each combination: files of the catalogue are read once each
where that is the same (`_Catalogue`), values of the other axes are typed by the structured config once each, and then
all is multiplied. Thousands of cells are planned in a second.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from bench.errors import BadInput, nearest
from bench.plan.settings import DeviceSettings, ModelSettings, Settings

_NODES = {"model": ModelSettings, "device": DeviceSettings}  # the groups whose files are one node of the configuration
_GROUPS = (*_NODES, "experiment")
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

    Combinations of the same model or device share its data; they are not to be changed.
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
        axes = {override.key_or_group: override for override in mine if override.is_sweep_override()}
        group_axes = {key: override for key, override in axes.items() if key in _GROUPS}
        value_axes = {key: override for key, override in axes.items() if key not in _GROUPS}
        catalogue = _Catalogue(mine)
        for names_of_groups in itertools.product(*(_values(override) for override in group_axes.values())):
            parts = catalogue.compose(dict(zip(group_axes, names_of_groups, strict=True)))
            typed = [_part_with(key, parts).typed_values(override) for key, override in value_axes.items()]
            plain = {key: value for part in parts.values() for key, value in part.plain.items()}
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


def validate_all(combinations: Sequence[dict[str, Any]]) -> list[Settings]:
    """`validate` for each. Combinations that share the data of a model or a device share its settings, too."""
    validated: dict[int, ModelSettings | DeviceSettings] = {}  # by the identity of their data
    found = []
    for plain in combinations:
        # pydantic takes an instance as it is, so each model and each device is validated only once.
        nodes = {key: validated.get(id(plain[key]), plain[key]) for key in _NODES}
        settings = validate({**plain, **nodes})
        validated[id(plain["model"])] = settings.model
        validated[id(plain["device"])] = settings.device
        found.append(settings)
    return found


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


class _Part:
    """A configuration, or a node of one (`model`, `device`). What is asked of it is worked out once."""

    def __init__(self, config: DictConfig) -> None:
        self._config = config
        self._typed_values: dict[str, list[Any]] = {}

    @cached_property
    def plain(self) -> dict[str, Any]:
        try:
            plain = OmegaConf.to_container(self._config, resolve=True)
        except OmegaConfBaseException as error:
            raise BadInput(_explain(error)) from error
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    def typed_values(self, axis: Override) -> list[Any]:
        """The values of an axis as the structured config types them."""
        key = axis.key_or_group
        if key not in self._typed_values:
            self._typed_values[key] = [_typed_value(self._config, key, text) for text in _values(axis)]
        return self._typed_values[key]


class _Catalogue:
    """The configuration for any choice of model, device and experiment, under the same overrides.

    A file of conf/model says what the node `model` is, and one of conf/device what `device` is. Where nothing else has
    a say in these nodes but plain overrides (model.revision=main), each file is read once, and Hydra composes the rest
    once for each experiment. Otherwise, and for whatever is wrong, Hydra composes each combination of choices.
    """

    def __init__(self, overrides: list[Override]) -> None:
        self._fixed = [override for override in overrides if not override.is_sweep_override()]
        fixed_keys = {override.key_or_group for override in self._fixed}
        axes = {override.key_or_group: override for override in overrides if override.is_sweep_override()}
        experiments = [override.value() for override in self._fixed if override.key_or_group == "experiment"]
        experiments += _values(axes["experiment"]) if "experiment" in axes else []
        self._separable = (
            all(_stands_alone(override) for override in overrides)
            and not any(key in fixed_keys for key in axes)
            and all(_keeps_out_of_nodes(experiment) for experiment in experiments)
        )
        self._nodes: dict[tuple[str, str], _Part | None] = {}
        self._rests: dict[str | None, _Part] = {}

    def compose(self, choice: dict[str, str]) -> dict[str, _Part]:
        """The parts of the configuration for a name of each group: nodes by their key, and under "" the rest, or all.

        What is in a node's part counts, whatever the rest has in its place.
        """
        if not self._separable:
            return {"": self._ask_hydra(choice)}
        nodes = {group: self._node(group, choice[group]) for group in _NODES if group in choice}
        read = {group: node for group, node in nodes.items() if node is not None}
        if len(read) < len(nodes):
            return {"": self._ask_hydra(choice)}
        experiment = choice.get("experiment")
        if experiment not in self._rests:
            self._rests[experiment] = self._ask_hydra(choice)
        return {"": self._rests[experiment], **read}

    def _ask_hydra(self, choice: dict[str, str]) -> _Part:
        chosen = [f"{group}={name}" for group, name in choice.items()]
        return _Part(_compose([*(str(override.input_line) for override in self._fixed), *chosen]))

    def _node(self, group: str, name: str) -> _Part | None:
        if (group, name) not in self._nodes:
            config = _read_node(group, name, self._fixed)
            self._nodes[group, name] = None if config is None else _Part(config)
        return self._nodes[group, name]


def _part_with(key: str, parts: dict[str, _Part]) -> _Part:
    return parts.get(key.partition(".")[0], parts[""])


def _stands_alone(override: Override) -> bool:
    """Whether an override gives its own key a value, and does so without looking at other keys."""
    return override.type is OverrideType.CHANGE and override.package is None and "${" not in str(override.input_line)


def _keeps_out_of_nodes(experiment: Any) -> bool:
    """Whether an experiment leaves the nodes `model` and `device` as they are."""
    if experiment is None:
        return True
    content = _read_alone("experiment", experiment, package="_global_")
    return content is not None and not any(group in content for group in _NODES)


def _read_node(group: str, name: str, overrides: list[Override]) -> DictConfig | None:
    """The configuration that has only the node `group`, as its file and `overrides` say.

    None where that is left to Hydra, for something out of the ordinary or for its message.
    """
    try:
        content = _read_alone(group, name, package=group)
        if content is None:
            return None
        config = OmegaConf.create({group: OmegaConf.merge(OmegaConf.structured(_NODES[group]), content)})
        OmegaConf.set_struct(config, True)
        for override in overrides:
            if override.key_or_group.startswith(f"{group}."):
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    except (OmegaConfBaseException, ValueError):
        return None
    return config


def _read_alone(group: str, name: str, package: str) -> DictConfig | None:
    """A file of conf that speaks of `package`, and refers to nothing outside itself; None for any other."""
    if name not in names(group):
        return None
    path = config_dir() / group / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    content = OmegaConf.load(path)
    elsewhere = set(re.findall(r"@package\s+(\S+)", text)) - {package}
    if elsewhere or "${" in text or not isinstance(content, DictConfig) or "defaults" in content:
        return None
    return content


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


def _typed_value(config: DictConfig, key: str, text: str) -> Any:
    override = _parse([f"{key}={text}"])[0]
    scratch = copy.deepcopy(config)
    try:
        OmegaConf.update(scratch, key, override.value(), merge=True)
    except OmegaConfBaseException as error:
        raise BadInput(_explain(error)) from error
    value = OmegaConf.select(scratch, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        settings[parent] = {**settings[parent]}
        settings = settings[parent]
    settings[last] = value
