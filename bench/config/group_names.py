"""What is asked for of a group, as names: `all` and `2xall` listed, several cards as one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.config import explain, machines
from bench.config.catalogue import Catalogue
from bench.core.errors import BadInput, nearest

ALL = "all"


def names_of(group: str, asked: Sequence[Any], typed: str, catalogue: Catalogue) -> list[str]:
    """The names of the files of `group` that `asked` names, and of machines out of those. Raises `BadInput`."""
    if None in asked:
        raise BadInput(f"{typed}: name one, or leave it out. {nearest('', catalogue.names(group))}")
    names = [str(one) for one in asked]
    if group == "device":
        names = [machine for one in names for machine in machines.listed(one, catalogue)]
        if len(set(names)) < len(names):
            raise BadInput(f"{typed}: a comma makes an axis, and one card is there twice; {explain.SEVERAL_GPUS}")
    return names


def is_all(group: str, value: Any, catalogue: Catalogue) -> bool:
    """Whether a value stands for all that there are of a group, and not for a file that is called so."""
    return bool(value == ALL) and group != "experiment" and catalogue.find(group, ALL) is None
