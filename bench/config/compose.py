"""From a command line to settings, by Hydra (which overrides.py and jobs/hydra_jobs.py also use).

Values are parsed once each (overrides.py, the door to its grammar), models and devices composed once each (parts.py),
and then all is multiplied. Hydra checks the names of keys, pydantic the values, for each combination.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import MISSING, fields, make_dataclass
from dataclasses import field as dataclass_field
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from bench.config import drafts, explain
from bench.config.catalogue import GROUPS, Catalogue, config_dir, folder_of, user_dir
from bench.config.chosen import Finisher
from bench.config.overrides import parse
from bench.config.parts import NODES, Composed, Override, Parts, part_with, read_alone
from bench.config.settings import DeviceSettings, ModelSettings, Settings
from bench.config.typed import quoted
from bench.core.errors import BadInput, first_line
from bench.core.extras import launcher_package

__all__ = ["config_dir"]

_ADAPTER = TypeAdapter(Settings)
_SCHEMAS: dict[str, type] = {"model": ModelSettings, "device": DeviceSettings}
_SEARCHPATH = "hydra.searchpath"
_LAUNCHER = "hydra/launcher"
_DRAFT = "draft_model"  # which is composed apart (`drafts.py`)
_NO_LAUNCHER = "basic"  # Hydra's default


def names(group: str) -> list[str]:
    """The names of a group of the program's own catalogue, `model` or `device`."""
    return Catalogue().names(group)


def listed(group: str, overrides: Sequence[str]) -> list[str]:
    """The names of one model or one card each, also those in the folders that `overrides` name."""
    return _read(overrides).catalogue.listed(group)


def device_settings(name: str) -> DeviceSettings:
    """One file of conf/device, without composing anything."""
    plain = OmegaConf.to_container(OmegaConf.load(config_dir() / "device" / f"{name}.yaml"))
    return TypeAdapter(DeviceSettings).validate_python(plain)


def model_settings(name: str) -> ModelSettings:
    """One file of conf/model, in the same way."""
    plain = OmegaConf.to_container(OmegaConf.load(config_dir() / "model" / f"{name}.yaml"))
    return TypeAdapter(ModelSettings).validate_python(plain)


def combinations(overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Every combination of a sweep's overrides, as plain data in the shape of `Settings`, `hydra.*` left out.

    Combinations of the same model or device share its data; they are not to be changed.
    Raises `BadInput` for what Hydra refuses.
    """
    mine, of_draft = drafts.taken_out(overrides)
    found, by_experiment = _combinations(mine)
    given = {text.partition("=")[0] for text in of_draft}
    _, of_experiment = drafts.taken_out(by_experiment)
    of_draft += [text for text in of_experiment if text.partition("=")[0] not in given]
    searched = [text for text in mine if text.lstrip("+").startswith(f"{_SEARCHPATH}=")]
    drafted = drafts.drafts_of(of_draft, lambda asked: _combinations([*asked, *searched])[0])
    is_asked = any(text.startswith("draft=") for text in (*mine, *by_experiment))
    return drafts.with_drafts(found, drafted, is_asked)


def _combinations(overrides: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The combinations without draft models, and what an experiment makes an axis, as it would be typed."""
    asked = _read(overrides)
    mine = asked.mine
    found: list[dict[str, Any]] = []
    compose_once, read_once = functools.cache(asked.compose), functools.cache(read_alone)
    with _Composer():
        first, defaults = compose_once(tuple(one.text for one in mine if not one.is_axis))
        named = {override.key for override in mine}
        texts = [f"{key}={values}" for key, values in defaults.items() if key not in named]
        mine += parse([text for text in texts if not text.startswith(drafts.PREFIX)], asked.catalogue)
        axes = {override.key: override for override in mine if override.is_axis}
        group_axes = {key: override for key, override in axes.items() if key in GROUPS}
        value_axes = {key: override for key, override in axes.items() if key not in GROUPS}
        schemas = {name: _names_of_keys(schema) for name, schema in _SCHEMAS.items()}
        parts_of = Parts(mine, asked.catalogue, schemas, lambda overrides: compose_once(tuple(overrides))[0], read_once)
        finish = Finisher(asked.catalogue, _named(mine, first), read_once)
        for choice in itertools.product(*(override.values for override in group_axes.values())):
            parts = parts_of.compose(dict(zip(group_axes, choice, strict=True)))
            typed = [part_with(key, parts).typed_values(override) for key, override in value_axes.items()]
            plain = {key: value for part in parts.values() for key, value in part.plain.items()}
            choices = {key: value for part in parts.values() for key, value in part.choices.items()}
            for values in itertools.product(*typed):
                settings = {**plain}
                for key, value in zip(value_axes, values, strict=True):
                    _assign(settings, key, value)
                found.append(finish(settings, choices))
    return found, texts


def composed(overrides: Sequence[str]) -> str:
    """The first combination of `overrides` as YAML, with a line that says how many there are. Raises `BadInput`."""
    found = combinations(overrides)
    validate(found[0])
    return f"# the first of {len(found):,} combinations\n{OmegaConf.to_yaml(OmegaConf.create(found[0]))}"


def validate(settings: dict[str, Any]) -> Settings:
    """The settings of one combination, within their ranges; raises `BadInput`."""
    try:
        return _ADAPTER.validate_python(settings)
    except ValidationError as error:
        raise BadInput(explain.invalid(error)) from error


def validate_all(combinations: Sequence[dict[str, Any]]) -> list[Settings]:
    """`validate` for each. Combinations that share the data of a model or a device share its settings, too.

    Each key is validated by itself, so a combination of values that were all seen in others needs no second look.
    """
    validated = defaultdict[str, dict[int, Any]](dict)  # by the identity of what was given
    found = []
    for plain in combinations:
        if any(id(value) not in validated[key] for key, value in plain.items()):
            # pydantic takes an instance as it is, so each model and each device is validated only once.
            nodes = {key: validated[key].get(id(plain[key]), plain[key]) for key in (*NODES, _DRAFT) if key in plain}
            settings = validate({**plain, **nodes})
            for key, value in plain.items():
                validated[key].setdefault(id(value), getattr(settings, key))
        found.append(Settings(**{key: validated[key][id(value)] for key, value in plain.items()}))
    return found


def launcher_override(overrides: Sequence[str]) -> str | None:
    """The name of the Hydra launcher that was asked for, here or by an experiment, if one was."""
    mine, of_draft = drafts.taken_out(overrides)
    asked = _read(mine)
    if asked.launcher is not None and of_draft:
        raise BadInput(f"{_LAUNCHER}={asked.launcher}: a launcher is not handed a draft model; leave it out")
    if asked.launcher is not None or not any(override.key == "experiment" for override in asked.mine):
        return asked.launcher
    with _Composer():
        composed, _ = asked.compose([override.text for override in asked.mine if not override.is_axis])
    return None if (chosen := composed.choices.get(_LAUNCHER)) == _NO_LAUNCHER else chosen


def hydras_own(overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes of its own part, `hydra`, with all that was said of a launcher. Raises `BadInput`."""
    mine, _ = drafts.taken_out(overrides)
    asked = _read(mine)
    with _Composer():
        own, _ = asked.compose_own([override.text for override in asked.mine if not override.is_axis])
    return own


def register_schema() -> None:
    """Makes the keys of `Settings` known to Hydra as `base_schema`."""
    ConfigStore.instance().store(name="base_schema", node=_names_of_keys(Settings))


def _names_of_keys(schema: type) -> type:
    """A dataclass with the keys of `schema`, each of any type."""
    members: list[tuple[str, Any, Any]] = []
    for member in fields(schema):
        if member.name == _DRAFT:
            continue
        if member.name in _SCHEMAS and schema is Settings:
            node = _names_of_keys(_SCHEMAS[member.name])
            members.append((member.name, node, dataclass_field(default_factory=node)))
        elif member.default_factory is not MISSING:
            kind = dict[str, Any] if isinstance(member.default_factory(), dict) else Any
            members.append((member.name, kind, dataclass_field(default_factory=member.default_factory)))
        else:
            members.append((member.name, Any, dataclass_field(default=member.default)))
    return make_dataclass(schema.__name__, members)


class _Composer:
    """Hydra's compose API over the catalogue; Hydra's global state is restored."""

    def __enter__(self) -> None:
        register_schema()
        GlobalHydra.instance().clear()
        self._context = initialize_config_dir(str(config_dir()), version_base="1.3", job_name="vram-bench")
        self._context.__enter__()

    def __exit__(self, *_: object) -> None:
        self._context.__exit__(None, None, None)
        GlobalHydra.instance().clear()


def _named(overrides: Sequence[Override], composed: Composed) -> set[str]:
    """The groups of which a file was named, on the command line or by an experiment."""
    (usual,) = (entry.model for entry in OmegaConf.load(config_dir() / "config.yaml").defaults if "model" in entry)
    by_experiment = {"model"} if composed.choices.get("model") != usual else set()
    return {override.key for override in overrides if override.key in GROUPS} | by_experiment


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        settings[parent] = {**settings[parent]}
        settings = settings[parent]
    settings[last] = value


class _Asked(NamedTuple):
    """A command line, read: what is for this program, what is for Hydra, and where names are looked up."""

    mine: list[Override]
    hydras: list[str]
    catalogue: Catalogue
    launcher: str | None

    def compose(self, overrides: Sequence[str]) -> tuple[Composed, dict[str, Any]]:
        """What Hydra composes, and the axes that an experiment names."""
        own, config = self.compose_own(overrides)
        choices, axes = own.runtime.choices, own.sweeper.params
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        OmegaConf.set_struct(config, True)
        return Composed(config, dict(choices)), dict(axes or {})

    def compose_own(self, overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """Hydra's own part of what it composes, and the whole."""
        given = [*overrides, *self.hydras]
        try:
            config = compose("config", overrides=given, return_hydra_config=True)
        except MissingConfigException as error:
            raise BadInput(self._missing(given, error)) from error
        except (ConfigCompositionException, OmegaConfBaseException, ValueError) as error:
            raise BadInput(self._with_own_names(explain.composition(error))) from error
        return config.hydra, config

    def _missing(self, overrides: list[str], error: Exception) -> str:
        for override in parse(overrides, self.catalogue):
            name = override.values[0]
            if override.key in GROUPS and isinstance(name, str) and self.catalogue.find(override.key, name) is None:
                return explain.unknown_choice(override.key, name, self.catalogue.names(override.key))
            if override.key.startswith("hydra/"):
                return f"{override.key}={name}: not installed: {launcher_package(str(name))}"
        return first_line(error)

    def _with_own_names(self, message: str) -> str:
        for (group, name), path in self.catalogue.own_files.items():
            message = message.replace(f"{group}/{name}", str(path))
        return message


def _read(overrides: Sequence[str]) -> _Asked:
    """Raises `BadInput` for what is no override, and for keys of Hydra's that would have no effect."""
    own = [user_dir()] if user_dir().is_dir() else []
    catalogue = Catalogue(own)
    searched = parse([text for text in overrides if text.lstrip("+").startswith(f"{_SEARCHPATH}=")], catalogue)
    own += [folder_of(str(url)) for one in searched for url in _urls(one)]
    parsed = parse(overrides, catalogue)
    launchers = [str(one.values[0]) for one in parsed if one.key == _LAUNCHER]
    hydras = []
    for one in parsed:
        if one.key.startswith("hydra") and one.key != _SEARCHPATH:
            _require_effect(one.key, bool(launchers) or any(other.key == "experiment" for other in parsed))
            hydras.append(one.text)
    if own:
        hydras.append(f"{_SEARCHPATH}=[{','.join(quoted(f'file://{folder}') for folder in own)}]")
    mine = [one for one in parsed if not one.key.startswith("hydra")]
    return _Asked(mine, hydras, catalogue, launchers[-1] if launchers else None)


def _urls(override: Override) -> list[Any]:
    (value,) = override.values if len(override.values) == 1 else (None,)
    if not isinstance(value, list):
        raise BadInput(f"{_SEARCHPATH} takes a list of folders: '{_SEARCHPATH}=[file:///DIR]', or --config-dir DIR")
    return value


def _require_effect(key: str, may_launch: bool) -> None:
    if key.startswith("hydra.run.") or key in ("hydra.mode", "hydra.output_subdir"):
        raise BadInput(f"{key} has no effect here: results go to results_dir, one folder a run (run_id)")
    if key not in (_LAUNCHER,) and not key.startswith("hydra.sweeper.params") and not may_launch:
        raise BadInput(f"{key} has no effect without hydra/launcher=NAME; results go to results_dir")
