"""Several cards as one device: `2xrtx_3090`, or `rtx_4090+rtx_3060_12gb`, out of the files of single cards."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from bench.config.catalogue import WAYS, Catalogue, own_file
from bench.config.chosen import complete
from bench.config.conf_files import read_alone, unreadable
from bench.config.explain import unknown_choice
from bench.config.settings import MACHINE, UNSET
from bench.core.errors import BadInput
from bench.core.machine import machine_name

MAX_CARDS = 16  # as many as a node has
# `2x4090` is two of something, `4090x2` is not 4,090.
_COUNTED = re.compile(r"(\d+)\s*[x×*]\s*(.*\D.*|\d{3,})", re.IGNORECASE)
_ALL = "all"
_EXAMPLE = "device=2xrtx_3090, or device=rtx_4090+rtx_3060_12gb"


def is_machine(name: str, catalogue: Catalogue) -> bool:
    """Whether the name of a device is of several cards, and not of one that happens to be called so."""
    if catalogue.find("device", name) is not None or Path(name).expanduser().is_file():
        return False
    return "+" in name or _COUNTED.fullmatch(name.strip()) is not None


def listed(name: str, catalogue: Catalogue) -> list[str]:
    """The machines that a name stands for: `2xall` is each card twice, `all+all` every pair, in one order each."""
    parts = [part.strip() for part in name.split("+")]
    open_parts = [number for number, part in enumerate(parts) if _count_and_card(part)[1] == _ALL]
    if not open_parts or catalogue.find("device", _ALL) is not None:
        return [name]
    machines = []
    for cards in itertools.combinations_with_replacement(catalogue.known("device"), len(open_parts)):
        filled = list(parts)
        for number, card in zip(open_parts, cards, strict=True):
            filled[number] = filled[number][: -len(_ALL)] + card
        machines.append("+".join(filled))
    return machines


def _count_and_card(part: str) -> tuple[int, str]:
    """`2xrtx_3090` is 2 and `rtx_3090`; a name alone is one of it."""
    match = _COUNTED.fullmatch(part)
    return (int(match[1]), match[2].strip()) if match else (1, part)


def adopt(name: str, catalogue: Catalogue) -> str:
    """Makes the cards that `name` lists known to the catalogue as one device, and returns that one's name.

    Raises `BadInput` for a card that there is not, and for more or fewer than a machine has.
    """
    cards = [card for part in name.split("+") for card in _counted(part.strip(), name)]
    if not 2 <= len(cards) <= MAX_CARDS:
        count = f"{len(cards)} card" if len(cards) == 1 else f"{len(cards)} cards"
        raise BadInput(f"device={name}: {count}; a machine has 2 to {MAX_CARDS}, as in {_EXAMPLE}")
    read = {card: _read(card, name, catalogue) for card in dict.fromkeys(cards)}
    called = machine_name([str(read[card]["name"]) for card in cards])
    node: dict[str, object] = {"name": called, "kind": MACHINE, "cards": [read[card] for card in cards]}
    adopted = called.replace("/", "-")  # which Hydra takes for a group
    if catalogue.machines.get(adopted, node) != node:  # other cards of the same names
        adopted = f"{adopted}-{len(catalogue.machines)}"
    catalogue.machines[adopted] = node
    return adopted


def _counted(part: str, name: str) -> list[str]:
    count, card = _count_and_card(part)
    if not card or not count:
        raise BadInput(f"device={name}: name a card before and after each +, and count from 1: {_EXAMPLE}")
    if count > MAX_CARDS:
        raise BadInput(f"device={name}: {count} cards; a machine has 2 to {MAX_CARDS}, as in {_EXAMPLE}")
    return [card] * count


def _read(card: str, name: str, catalogue: Catalogue) -> dict[str, object]:
    if card in WAYS["device"]:
        raise BadInput(f"device={name}: GPUs of this machine are named by their numbers: device=cuda device.index=0+1")
    path = own_file("device", card) or catalogue.find("device", card)
    if path is None:
        raise BadInput(f"device={name}: {unknown_choice('device', card, catalogue.names('device'))}")
    try:
        told = read_alone(path, package="device")
    except unreadable() as error:
        raise BadInput(f"{path}: not a readable YAML document ({' '.join(str(error).split())})") from None
    if told is None:
        raise BadInput(f"{path}: a card in a machine must be told in full in its own file, without references")
    return complete({"name": UNSET, "kind": UNSET, **{str(key): value for key, value in told.items()}}, path.stem)
