"""Several cards that hold one model, as the columns of a row that are about one card see them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from bench.core.device import DeviceSpec

_BETWEEN = "+"


@dataclass(frozen=True)
class Machine:
    """Two or more cards of one kind, in the order in which the engine counts them.

    What cannot be said of all together is None; `cards` says it of each.
    """

    devices: tuple[DeviceSpec, ...]

    context_bytes = workspace_bytes = multi_processor_count = memory_bandwidth_bytes_per_s = None

    @cached_property
    def name(self) -> str:
        """`2xrtx_3090`, or `rtx_4090+rtx_3060_12gb`."""
        return machine_name([device.name for device in self.devices])

    @property
    def kind(self) -> str:
        """That of all of them."""
        return self.devices[0].kind

    @cached_property
    def total_memory_bytes(self) -> int:
        """The sum."""
        return sum(device.total_memory_bytes for device in self.devices)

    @cached_property
    def compute_capability(self) -> str | None:
        """`8.9`, or `8.9+8.6` where they differ."""
        found = [device.compute_capability for device in self.devices]
        return found[0] if len(set(found)) == 1 else _BETWEEN.join(each or "?" for each in found)

    @cached_property
    def uuid(self) -> str | None:
        """Those of real cards, in their order."""
        found = [device.uuid for device in self.devices if device.uuid is not None]
        return _BETWEEN.join(found) or None

    @cached_property
    def cards(self) -> str:
        """What each card is, as JSON: all that a result depends on, but for the card's number (`uuid`)."""
        return json.dumps([{**device.identity, "uuid": None} for device in self.devices], sort_keys=True)


def machine_name(names: list[str]) -> str:
    """What a machine of cards with these names is called; cards that follow each other are counted."""
    counted = [(name, len(list(alike))) for name, alike in groupby(names)]
    return _BETWEEN.join(name if count == 1 else f"{count}x{name}" for name, count in counted)
