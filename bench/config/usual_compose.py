"""What Hydra composes of overrides as most people type them, without importing it: in 4 ms of CPU in place of 150.

A configuration is `conf/config.yaml` with a file of each group in its place, and values in theirs. Only what is put
together in that way is composed here: files that refer to others, keys that there are not, and whatever is wrong are
left to Hydra (hydra_compose.py). The two agree, which a test says of every file, of every key and of any text.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from bench.config.assigned import with_value
from bench.config.catalogue import GROUPS, NODES, Catalogue, config_dir, user_dir
from bench.config.chosen import Finisher
from bench.config.conf_files import Reader, read, read_alone
from bench.config.drafts import PREFIX
from bench.config.settings import UNSET, DeviceSettings, ModelSettings, Settings
from bench.config.usual_overrides import EXPERIMENT, Given, UnusualError, node_of
from bench.config.usual_overrides import read as read_overrides
from bench.core.errors import BadInput

_SCHEMAS: dict[str, type] = {"model": ModelSettings, "device": DeviceSettings}
_AS_ALWAYS = ("base_schema", "_self_")  # of the defaults list, in the order in which they are merged
_AXES = ("hydra", "sweeper", "params")  # where an experiment has its axes
_OF_THE_WHOLE = "# @package _global_"
Combinations = list[dict[str, Any]]


def combinations(overrides: Sequence[str]) -> tuple[Combinations, list[str]] | None:
    """Every combination, and what an experiment makes an axis, as it would be typed; None where Hydra is to say."""
    catalogue = Catalogue([user_dir()] if user_dir().is_dir() else [])
    try:
        return _Request(overrides, catalogue).combinations()
    except (UnusualError, BadInput):  # which Hydra may have something to say before
        return None


def is_usual(overrides: Sequence[str]) -> bool:
    """Whether `overrides` are of the kind that is read here, so that none is about Hydra itself."""
    catalogue = Catalogue([user_dir()] if user_dir().is_dir() else [])
    try:
        _Request(overrides, catalogue)
    except (UnusualError, BadInput):
        return False
    return True


class _Request:
    """A command line, read: the files that are named, and the values. Raises `UnusualError` and `BadInput`."""

    def __init__(self, overrides: Sequence[str], catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._read: Reader = functools.cache(read_alone)
        self._given = read_overrides(overrides, catalogue)
        self.of_experiment: list[str] = []
        if EXPERIMENT in self._given:
            (name,) = self._given[EXPERIMENT].values
            axes = self._axes_of(catalogue.find(EXPERIMENT, name))
            self.of_experiment = [f"{key}={values}" for key, values in axes.items() if key not in self._given]
            more = [text for text in self.of_experiment if not text.startswith(PREFIX)]
            self._given |= read_overrides(more, catalogue)

    def combinations(self) -> tuple[Combinations, list[str]]:
        whole, choices = _whole()
        fixed = {key: each.values[0] for key, each in self._given.items() if len(each.values) == 1}
        axes = [each for each in self._given.values() if len(each.values) > 1]
        group_axes = [axis for axis in axes if axis.key in GROUPS]
        value_axes = [axis for axis in axes if axis.key not in GROUPS]
        choices |= {key: value for key, value in fixed.items() if key in GROUPS}
        whole |= {key: value for key, value in fixed.items() if key in whole and key not in GROUPS}
        finish = Finisher(self._catalogue, {key for key in self._given if key in GROUPS}, self._read)
        node_of_name = functools.cache(functools.partial(self._node, fixed))
        found: Combinations = []
        for chosen in _products(group_axes):
            names = choices | chosen
            plain = whole | {group: node_of_name(group, names[group]) for group in NODES}
            for values in _products(value_axes):
                settings = plain
                for key, value in values.items():
                    settings = with_value(settings, key, value)
                found.append(finish(settings, names))
        return found, self.of_experiment

    def _node(self, fixed: Mapping[str, Any], group: str, name: str) -> dict[str, Any]:
        """What a file of a group and the values of its keys make of the group's node."""
        content = self._catalogue.machines.get(name) if group == "device" else None
        if content is None:
            content = self._read(self._catalogue.find(group, name), group)
        schema = _defaults(_SCHEMAS[group])
        if content is None or not content.keys() <= schema.keys():
            raise UnusualError
        for key, usual in schema.items():
            if isinstance(usual, dict) and not _has_names(content.get(key, usual)):
                raise UnusualError
        node = schema | content
        if UNSET in content.values():
            raise UnusualError
        return node | {key.partition(".")[2]: value for key, value in fixed.items() if node_of(key) == group}

    def _axes_of(self, experiment: Path | None) -> dict[str, str]:
        """The axes of an experiment that says nothing else."""
        content: Any = self._read(experiment, "_global_")
        if content is None or experiment is None or _OF_THE_WHOLE not in experiment.read_text(encoding="utf-8"):
            raise UnusualError
        for name in _AXES:
            if not isinstance(content, dict) or list(content) != [name]:
                raise UnusualError
            content = content[name]
        if not isinstance(content, dict) or not all(type(value) in (str, int, float) for value in content.values()):
            raise UnusualError
        return {str(key): str(value) for key, value in content.items()}


def _whole() -> tuple[dict[str, Any], dict[str, Any]]:
    """Every key with the value that config.yaml gives it, the nodes empty, and the file that is usual of each group."""
    content = read(config_dir() / "config.yaml")
    keys = _defaults(Settings)
    choices: dict[str, Any] = {}
    content.pop("hydra")  # what Hydra does with its own files and streams: none is written or used here
    for entry in content.pop("defaults"):
        if isinstance(entry, dict):
            choices |= {group: name for group, name in entry.items() if not group.startswith("override hydra/")}
        elif entry not in _AS_ALWAYS:
            raise UnusualError
    if not content.keys() <= keys.keys() or choices.keys() != set(GROUPS) or "${" in str(content):
        raise UnusualError
    return keys | content, choices


def _defaults(schema: type) -> dict[str, Any]:
    """The keys that Hydra knows of a schema, with their values where no file has one."""
    return {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(schema)
        if each.name != "draft_model"
    }


def _has_names(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _products(axes: Sequence[Given]) -> list[dict[str, Any]]:
    keys = [axis.key for axis in axes]
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]
