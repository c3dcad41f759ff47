"""Checks that the chosen files and the keys beside them fit together, so that no key is ignored silently."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from bench.config.catalogue import Catalogue
from bench.config.conf_files import Reader
from bench.config.settings import UNSET
from bench.core.errors import BadInput

_KEYS = ("path", "repo", "revision", "config")  # each says, in one way or another, which model is meant
_Node = dict[str, Any]


class Finisher:
    """Completes and checks the model and the card of each combination, each no more often than needed.

    `named` are the groups of which a file was asked for.
    """

    def __init__(self, catalogue: Catalogue, named: Collection[str], read: Reader) -> None:
        self._catalogue = catalogue
        self._read = read
        self._named = named
        self._done: dict[tuple[int, str], tuple[_Node, _Node]] = {}  # with what was completed, which keeps its id alive

    def __call__(self, settings: dict[str, Any], choices: dict[str, str | None]) -> dict[str, Any]:
        """The combination `settings`, of the files that `choices` name. Raises `BadInput`."""
        model = self._once(settings["model"], str(choices["model"]), self._model)
        device = self._once(settings["device"], str(choices["device"]), self._device)
        return {**settings, "model": model, "device": device}

    def _once(self, node: _Node, choice: str, finish: Callable[[_Node, str], _Node]) -> _Node:
        key = (id(node), choice)
        if key not in self._done:
            self._done[key] = (node, finish(node, choice))
        return self._done[key][1]

    def _model(self, node: _Node, choice: str) -> _Node:
        if node.get("path") == "":
            raise BadInput("model.path= is empty; name a directory with a config.json")
        content = self._read(self._catalogue.find("model", choice), "model")
        if content is not None:
            given = {key: node.get(key) for key in _KEYS if (node.get(key) or None) != (content.get(key) or None)}
            _require_one_way(choice, "model" in self._named, given)
        return complete(node, self._catalogue.stem("model", choice))

    def _device(self, node: _Node, choice: str) -> _Node:
        return complete(node, self._catalogue.stem("device", choice))


def complete(node: _Node, name: str) -> _Node:
    """A model or a card with what a file may leave out: its name is the file's, and a card is simulated."""
    usual = {"name": name, "kind": "simulated"}
    missing = {key: usual[key] for key in usual if node.get(key) == UNSET}
    if node.get("path") and node.get("name") in (UNSET, name):
        missing["name"] = "local"  # the file's name is not the directory's
    return {**node, **missing} if missing else node


def _require_one_way(choice: str, is_named: bool, given: _Node) -> None:
    """Refuses keys that belong to another way of naming the model than `choice`, the file in the group `model`."""
    path, of_hub = given.get("path"), [key for key in ("repo", "revision") if key in given]
    if path and not (place := Path(str(path)).expanduser()).is_dir():
        if place.is_file():
            raise BadInput(f"model.path={path}: it is a file; give its directory, model.path={place.parent}")
        return  # which is refused as for any path
    if path and "repo" in given:
        raise BadInput(f"model.path={path} and model.repo={given['repo']} name two models; leave one out")
    if path and of_hub:
        raise BadInput(f"model.revision={given['revision']} is for model=hub; a directory has no revisions")
    if path and is_named and choice != "local":
        raise BadInput(f"model.path={path} and model={choice} name two models; leave model out, or write model=local")
    if of_hub and choice != "hub":
        key = of_hub[0]
        other = f"; model={choice} is another way to name a model" if is_named else " beside it"
        raise BadInput(f"model.{key}={given[key]} needs model=hub{other}")
    if "config" in given and (path or choice in ("local", "hub")):
        raise BadInput(
            f"model.config changes models of the catalogue only; model={'local' if path else choice} reads the model's "
            "own config.json: change a copy of that, and name it with model=local model.path=DIR"
        )
