"""How a case of several turns went: columns of cases."""

from __future__ import annotations

from typing import Annotated, TypedDict

from bench.core.column import Column, Role


def _growth(of: str) -> Column:
    doc = f"{of} after the last turn that came to its end, less what it was after the first; null without a second"
    return Column(Role.OUTCOME, doc, "bytes", later=True)


class TurnColumns(TypedDict):
    """The turn in which it ended, and what had grown by then."""

    turn: Annotated[
        int | None,
        Column(
            Role.OUTCOME,
            "with `turns`, the one in which the case ended, from 1; null of one turn ([scenarios](scenarios.md#turns))",
            storage="int32",
            later=True,
        ),
    ]
    growth_allocated_bytes: Annotated[int | None, _growth("PyTorch's memory in use")]
    growth_reserved_bytes: Annotated[int | None, _growth("what PyTorch held from the driver")]
    growth_device_bytes: Annotated[int | None, _growth("what the card held")]
