"""A configuration in parts: the node `model`, the node `device`, and the rest, each composed no more often than needed.

Hydra takes some 50 ms to compose, so it is not asked for each combination: files of the catalogue are read once each
where that is the same, and all is multiplied. Thousands of searches are planned in a second.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.config.catalogue import NODES, Catalogue
from bench.config.conf_files import Reader
from bench.config.explain import composition
from bench.config.typed import quoted
from bench.core.errors import BadInput


@dataclass(frozen=True)
class Override:
    """One override. An axis has several `values`, which `texts` are as Hydra writes them; any other has one of each."""

    key: str
    text: str  # the whole of it, as Hydra reads it
    values: tuple[Any, ...]
    texts: tuple[str, ...]
    is_axis: bool
    stands_alone: bool  # it sets its own key, and its value refers to no other key


@dataclass(frozen=True)
class Composed:
    """What Hydra composed, `hydra` left out, and the name that was chosen from each group."""

    config: DictConfig
    choices: dict[str, str | None]


class Part:
    """A configuration, or a node of one (`model`, `device`). What is asked of it is worked out once."""

    def __init__(self, config: DictConfig, choices: dict[str, str | None]) -> None:
        self.choices = choices
        self._config = config
        self._typed_values: dict[str, list[Any]] = {}

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The part as plain data."""
        try:
            plain = OmegaConf.to_container(self._config, resolve=True)
        except OmegaConfBaseException as error:
            raise BadInput(composition(error)) from error
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    def typed_values(self, axis: Override) -> list[Any]:
        """The values of an axis, as they are when the part has them."""
        if axis.key not in self._typed_values:
            self._typed_values[axis.key] = _assigned(self._config, axis.key, axis.values)
        return self._typed_values[axis.key]


class Parts:
    """The configuration for any choice of model, device and experiment, under the same overrides.

    A file of conf/model says what the node `model` is, and one of conf/device what `device` is. Where nothing else has
    a say in these nodes but plain overrides (model.revision=main), each file is read once, and Hydra composes the rest
    once for each experiment. Otherwise, and for whatever is wrong, Hydra composes each combination of choices.
    """

    def __init__(
        self,
        overrides: list[Override],
        catalogue: Catalogue,
        schemas: dict[str, type],
        compose: Callable[[Sequence[str]], Composed],
        read: Reader,
    ) -> None:
        self._fixed = [override for override in overrides if not override.is_axis]
        self._catalogue = catalogue
        self._schemas = schemas
        self._compose = compose
        self._read = read
        fixed_keys = {override.key for override in self._fixed}
        axes = {override.key: override for override in overrides if override.is_axis}
        experiments = [override.values[0] for override in self._fixed if override.key == "experiment"]
        experiments += axes["experiment"].values if "experiment" in axes else ()
        self._separable = (
            all(override.stands_alone for override in overrides)
            and not any(key in fixed_keys for key in axes)
            and all(self._keeps_out_of_nodes(experiment) for experiment in experiments)
        )
        self._nodes: dict[tuple[str, str], Part | None] = {}
        self._rests: dict[str | None, Part] = {}
        self._structured: dict[str, DictConfig] = {}

    def compose(self, choice: dict[str, str]) -> dict[str, Part]:
        """The parts of the configuration for a name of each group: nodes by their key, and under "" the rest, or all.

        What is in a node's part counts, whatever the rest has in its place.
        """
        if not self._separable:
            return {"": self._ask_hydra(choice)}
        nodes = {group: self._node(group, choice[group]) for group in NODES if group in choice}
        read = {group: node for group, node in nodes.items() if node is not None}
        if len(read) < len(nodes):
            return {"": self._ask_hydra(choice)}
        experiment = choice.get("experiment")
        if experiment not in self._rests:
            rest = {group: name for group, name in choice.items() if group not in NODES}
            self._rests[experiment] = self._ask_hydra(rest)  # as asked for before, where nothing but nodes varies
        return {"": self._rests[experiment], **read}

    def _ask_hydra(self, choice: dict[str, str]) -> Part:
        chosen = [f"{group}={quoted(str(name))}" for group, name in choice.items()]
        composed = self._compose([*(override.text for override in self._fixed), *chosen])
        return Part(composed.config, composed.choices)

    def _node(self, group: str, name: str) -> Part | None:
        if (group, name) not in self._nodes:
            config = self._read_node(group, name)
            self._nodes[group, name] = None if config is None else Part(config, {group: name})
        return self._nodes[group, name]

    def _read_node(self, group: str, name: str) -> DictConfig | None:
        """The configuration that has only the node `group`, as its file and the overrides say.

        None where Hydra has to compose it: for features that are not read here, and for its error messages.
        """
        try:
            content = self._content(group, name)
            if content is None:
                return None
            if group not in self._structured:
                self._structured[group] = OmegaConf.structured(self._schemas[group])
            config = OmegaConf.create({group: OmegaConf.merge(self._structured[group], content)})
            OmegaConf.set_struct(config, True)
            for override in self._fixed:
                if override.key.startswith(f"{group}."):
                    OmegaConf.update(config, override.key, override.values[0], merge=True)
        except (OmegaConfBaseException, ValueError):
            return None
        return config

    def _content(self, group: str, name: str) -> dict[str, Any] | None:
        if group == "device" and name in self._catalogue.machines:
            return self._catalogue.machines[name]
        return self._read(self._catalogue.find(group, name), group)

    def _keeps_out_of_nodes(self, experiment: Any) -> bool:
        """Whether an experiment leaves the nodes `model` and `device` as they are."""
        content = self._read(self._catalogue.find("experiment", str(experiment)), "_global_")
        return content is not None and not any(group in content for group in NODES)


def part_with(key: str, parts: dict[str, Part]) -> Part:
    """The part that has `key`."""
    return parts.get(key.partition(".")[0], parts[""])


def _assigned(config: DictConfig, key: str, values: Sequence[Any]) -> list[Any]:
    """Each of `values` as `config` has it at `key`."""
    typed: list[Any] = []
    scratch: DictConfig | None = None
    for value in values:
        if scratch is None or isinstance(value, dict):  # which would be merged with the one before it
            scratch = copy.deepcopy(config)
        try:
            OmegaConf.update(scratch, key, value, merge=True)
            found = OmegaConf.select(scratch, key)
        except OmegaConfBaseException as error:
            raise BadInput(composition(error)) from error
        typed.append(OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found)
    return typed
