"""Overrides as Hydra's grammar reads them, with the names of files looked up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser import types as grammar
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from bench.config import explain, machines
from bench.config.catalogue import GROUPS, NODES, Catalogue, own_file
from bench.config.group_names import is_all, names_of
from bench.config.parts import Override
from bench.config.typed import as_override, quoted
from bench.core.errors import BadInput, nearest
from bench.core.printable import is_printable, printable


def parse(overrides: Sequence[str], catalogue: Catalogue) -> list[Override]:
    """`overrides` of the command line by Hydra's grammar, in their order. Raises `BadInput` for what it cannot read."""
    parser = OverridesParser.create()
    parsed: list[Override] = []
    for text in overrides:
        _require_text(text)
        try:
            override = parser.parse_override(as_override(text))
        except HydraException as error:
            raise BadInput(_unreadable(text)) from error
        key = override.key_or_group
        if override.is_delete():
            raise BadInput(f"{text!r}: no key can be taken away; give it another value")
        if not key:
            raise BadInput(f"{text!r} names no key; write key=value, or key=a,b for an axis")
        if key in GROUPS:
            if override.type is not grammar.OverrideType.CHANGE:
                raise BadInput(f"{text!r}: a key that exists needs no +; write {text.lstrip('+')}")
            override = _with_names(parser, override, catalogue, text)
        parsed.append(_plain(override, parser))
    return parsed


def _require_text(text: str) -> None:
    if not is_printable(text, keep="\t\n"):
        raise BadInput(
            f"{printable(text)}: no text that can be shown, and rows and reports name it; rename what it names"
        )


def _unreadable(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals and text.lower().endswith((".yml", ".yaml")):
        return f"{text!r}: a card or a model of your own is device={text} or model={text}; {explain.TABBY}"
    if not equals:
        return f"{text!r} is no override; write key=value, or key=a,b for an axis"
    return f"{text!r}: {value!r} cannot be read as a value of {key}; write key=value, or key=a,b for an axis"


def _plain(override: grammar.Override, parser: OverridesParser) -> Override:
    key, is_axis = override.key_or_group, override.is_sweep_override()
    text = str(override.input_line)
    stands_alone = override.type is grammar.OverrideType.CHANGE and override.package is None and "${" not in text
    if not is_axis:
        value = override.value()
        return Override(key, text, (value,), (text.partition("=")[2],), False, stands_alone)
    try:
        texts = tuple(override.sweep_string_iterator())
    except HydraException as error:
        raise BadInput(f"{text!r} names no values; list them: {key}=a,b") from error
    if not texts:
        raise BadInput(f"{text!r} names no values: the axis is empty; list them: {key}=a,b")
    values = tuple(parser.parse_override(f"{key}={one}").value() for one in texts)
    return Override(key, text, values, texts, True, stands_alone)


def _with_names(
    parser: OverridesParser, override: grammar.Override, catalogue: Catalogue, typed: str
) -> grammar.Override:
    """The override of a group with its files by their names: `all` and glob(…) listed, own files adopted."""
    group = override.key_or_group
    value = override.value()
    if isinstance(value, grammar.Glob):
        chosen: list[Any] = value.filter(catalogue.known(group))
        if not chosen:
            raise BadInput(f"{typed}: no {group} is called so. {nearest('', catalogue.names(group))}")
    elif is_all(group, value, catalogue):
        chosen = catalogue.known(group)
    elif override.is_sweep_override():
        chosen = [parser.parse_override(f"{group}={one}").value() for one in override.sweep_string_iterator()]
    else:
        chosen = [value]
    texts = [quoted(_adopted(group, name, catalogue)) for name in names_of(group, chosen, typed, catalogue)]
    package = f"@{override.package}" if override.package else ""
    return parser.parse_override(f"{group}{package}={','.join(texts)}")


def _adopted(group: str, name: str, catalogue: Catalogue) -> str:
    """A name of the catalogue; a file that is named by its path is made known to Hydra first."""
    if group == "device" and machines.is_machine(name, catalogue):
        adopted = machines.adopt(name, catalogue)
        ConfigStore.instance().store(group=group, name=adopted, node=catalogue.machines[adopted])
        return adopted
    path = own_file(group, name)
    if path is None:
        return name
    adopted = catalogue.adopt(group, path)
    content, package = _content(path)
    if package is None and group in NODES:
        content.setdefault("name", path.stem)
    ConfigStore.instance().store(group=group, name=adopted, node=content, package=package, provider=str(path))
    return adopted


def _content(path: Path) -> tuple[DictConfig, str | None]:
    """What a file says, and of which package. Raises `BadInput`."""
    try:
        text = path.read_text(encoding="utf-8")
        content = OmegaConf.create(text)
    except (OSError, ValueError, YAMLError) as error:
        raise BadInput(f"{path}: not a readable YAML document ({' '.join(str(error).split())})") from None
    if not isinstance(content, DictConfig):
        raise BadInput(f"{path}: not a list of keys and values; see docs/adding-cards.md")
    package = re.search(r"^#\s*@package\s+(\S+)", text, re.MULTILINE)
    return content, package[1] if package else None
