"""Work that any of several equal cards may do, on each of them."""

from __future__ import annotations

import dataclasses

from bench.core.case import Case, Search


def alternatives(work: Case | Search) -> list[Case | Search]:
    """`work` on its own card, and then on each that is equal to it; only itself where there is none."""
    case = work.longest
    if not case.device.equals:
        return [work]
    cards = [dataclasses.replace(card, equals=()) for card in (case.device, *case.device.equals)]
    cases = [dataclasses.replace(case, device=card) for card in cards]
    return [work.along(each) if isinstance(work, Search) else each for each in cases]
