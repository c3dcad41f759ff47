"""What a row says of several turns: in which it ended, and what had grown by then."""

from __future__ import annotations

from bench.core.case import Case
from bench.core.messages import Memory
from bench.core.outcome import Phase
from bench.run.cards import total
from bench.run.told import Told

_NAMES = ("allocated", "reserved", "device")


def turns_of(case: Case, told: Told) -> dict[str, int | None]:
    """The columns of `core/turn_columns.py`; none of a case of one turn."""
    if case.turns == 1:
        return {}
    ends = {done.turn: [done.memory, *done.others] for done in told.phases if done.phase is Phase.DECODE}
    if len(ends) < 2:
        return {"turn": told.turn}
    first, last = ends[min(ends)], ends[max(ends)]
    return {"turn": told.turn, **{f"growth_{name}_bytes": _growth(first, last, name) for name in _NAMES}}


def _growth(first: list[Memory], last: list[Memory], name: str) -> int | None:
    """On all cards; None where the driver does not tell of one."""
    before, after = (total(getattr(card, f"{name}_bytes") for card in cards) for cards in (first, last))
    return None if before is None or after is None else after - before
