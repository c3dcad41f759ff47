"""YAML files that anybody may have written: read within bounds, by the safe loader, without aliases or keys twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bench.core.printable import is_printable, printable
from bench.core.regular_files import open_regular

MOST_BYTES = 256 << 10  # TabbyAPI's own sample, most of it comments, has 13 kB
MOST_DEPTH = 16


class BadYaml(ValueError):
    """What is wrong, to be said after a colon."""


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in the file `path`, its keys text. Raises `BadYaml`, and `OSError` for what cannot be read."""
    with open_regular(path) as file:
        data = file.read(MOST_BYTES + 1)
    return parse_mapping(data)


def parse_mapping(data: bytes) -> dict[str, Any]:
    """The mapping that `data`, a document in UTF-8, is. Raises `BadYaml`."""
    if len(data) > MOST_BYTES:
        raise BadYaml(f"longer than {MOST_BYTES:,} bytes")
    try:
        text = data.decode("utf-8-sig")
        if not is_printable(text, keep="\t\n\r"):
            raise BadYaml("it has characters that cannot be shown")
        _require_tree(text)
        _require_once(yaml.compose(text, yaml.SafeLoader))
        document = yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise BadYaml(f"no readable YAML ({_in_a_line(error)})") from None
    except (ValueError, OverflowError) as error:  # of a number or a date that is none
        raise BadYaml(str(error) if isinstance(error, BadYaml) else f"no readable YAML ({_in_a_line(error)})") from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise BadYaml("no list of keys and values")
    return document


def _require_tree(text: str) -> None:
    """Refuses aliases, by which a few lines may mean a million, and what is nested deep, before it is made."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise BadYaml(f"line {event.start_mark.line + 1}: aliases are not read; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise BadYaml(f"nested more than {MOST_DEPTH} deep")


def _require_once(node: Any) -> None:
    """Refuses a key that is there twice, as programs do that read YAML 1.2; the safe loader would take the last."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            told = str(key.value)
            if told in seen:
                raise BadYaml(f"line {key.start_mark.line + 1}: {printable(told)} is there twice")
            seen.add(told)
            _require_once(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _require_once(value)


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
