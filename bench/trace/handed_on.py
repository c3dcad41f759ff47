"""Blocks that one pass allocates and the next one frees, as two models that take turns hand them on.

A draft model's logits are held while it makes its next pass, and the table of a prompt's pages is made by the draft
model and freed after the model's own chunk. A section that is replayed knows its own blocks alone: such a block is left
at its end, and taken at the beginning of the next.

An example: the second section frees what the first has allocated.

>>> first = Section(1, 256, [Event(Op.MALLOC, 7, 512, layer=2)])
>>> second = Section(1, 256, [Event(Op.FREE, 7, layer=4)])
>>> [(event.op.name, event.layer, event.block) for section in handed_on([first, second]) for event in section.events]
[('MALLOC', 2, 7), ('LEAVE', 2, 7), ('TAKE', -1, 7), ('FREE', 4, 7)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.trace.passes import NoPrediction
from bench.trace.recording import Event, Op, Section

PLACES = 8  # where blocks can be left, at most so many by one section


def handed_on(sections: Sequence[Section]) -> list[Section]:
    """The sections, with what is left and taken. Raises `NoPrediction` for what is freed later than in the next."""
    made: dict[int, int] = {}  # the section that allocated each block
    left: list[list[int]] = [[] for _ in sections]
    for number, section in enumerate(sections):
        for event in section.events:
            if event.op is Op.MALLOC:
                made[event.block] = number
            elif event.op is Op.FREE and (maker := made.get(event.block)) != number:
                if maker != number - 1:
                    raise NoPrediction("a pass frees what one before the last has allocated")
                left[maker].append(event.block)
    if any(len(blocks) > PLACES for blocks in left):
        raise NoPrediction("a pass leaves more to the next one than any does that is known")
    return [
        replace(
            section,
            events=[
                *(Event(Op.TAKE, block, part=place) for place, block in enumerate(sorted(before))),
                *section.events,
                *(
                    Event(Op.LEAVE, block, part=place, layer=section.events[-1].layer)
                    for place, block in enumerate(sorted(after))
                ),
            ],
        )
        for section, before, after in zip(sections, [[], *left], left, strict=False)
    ]
