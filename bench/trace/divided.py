"""What each allocation follows where every layer is divided among cards: the part of a matrix that some card has.

A model is recorded at several lengths with one division, from which a trace is solved as ever, and once with each of
some others, in which no part is as in it. An allocation that has the same size in all of them follows no part; else
there is one part, of one card, in whose proportion it grows and shrinks to the byte. Where there is none, or more than
one, there is no prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench.trace import template as columns
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import NoPrediction
from bench.trace.recording import Op, Recording, Size
from bench.trace.solve import sections_of
from bench.trace.template import DENOMINATOR, NUM_TERMS, Array

# Of each part of a layer, what each card has of it.
PartsOfCards = Sequence[Sequence[int]]

_GROUPS = (columns.SIZE_TERMS, columns.Q_TERMS, columns.K_TERMS)
_FOLLOWING = (columns.HEADS, columns.KV_HEADS, columns.SHARE, columns.SHARES, columns.DIVIDED)
_ALIKE = [column for column in range(columns.SIZE_TERMS) if column not in _FOLLOWING]


def following_parts(
    trace: ParametricTrace, recordings: Sequence[Recording], divisions: Sequence[PartsOfCards]
) -> ParametricTrace:
    """The trace of a card with DIVIDED filled in: 0, or 1 + the number of a part, in the order of `divisions`.

    These are that of the trace, and those of each recording. A kind of section that follows nothing known is refused.
    """
    parts = np.array([np.ravel(division) for division in divisions], np.int64)
    tensors = {name: number for number, name in enumerate(trace.tensors)}
    samples: dict[str, list[tuple[Array, Array]]] = {kind: [] for kind in trace.templates}
    for recording in recordings:
        shown = dict[str, tuple[Array, Array]]()
        for kind, lengths, events in sections_of(recording, trace.setup, trace.num_layers, tensors):
            shown.setdefault(kind, (lengths, events))
        for kind, found in samples.items():
            if kind in shown:
                found.append(shown[kind])
    templates, refused = dict[str, Array](), dict(trace.refused)
    for kind, template in trace.templates.items():
        try:
            if len(samples[kind]) != len(recordings):
                raise NoPrediction(f"not every division among cards shows {kind}")
            templates[kind] = template.copy()
            templates[kind][:, columns.DIVIDED] = _followed(kind, template, samples[kind], parts)
        except NoPrediction as reason:
            refused[kind] = str(reason)
            templates.pop(kind, None)
    if not templates:
        raise NoPrediction(next(iter(refused.values())))
    return replace(trace, templates=templates, refused=refused)


def _followed(kind: str, template: Array, samples: Sequence[tuple[Array, Array]], parts: Array) -> Array:
    """The part that each event follows; `samples` are its lengths and its events in each division but the first."""
    events_count, num_parts = len(template), parts.shape[1]
    is_fixed = np.ones(events_count, bool)
    follows = np.ones((events_count, num_parts), bool)
    for division, (lengths, events) in zip(parts[1:], samples, strict=True):
        here = _at_length(template, lengths)
        if events.shape != here.shape or np.any(events[:, _ALIKE] != here[:, _ALIKE]):
            raise NoPrediction(f"{kind} sections differ in more than their sizes where layers are divided otherwise")
        if np.any(events[:, _GROUPS[1:]] != here[:, _GROUPS[1:]]):
            raise NoPrediction(f"attention in {kind} follows more than a part of its heads")
        for (before, of_before), (after, of_after) in zip(_quantities(here), _quantities(events), strict=True):
            is_fixed &= after * of_before == before * of_after
            grown = (after * of_before)[:, None] * parts[0]
            follows &= grown == (before * of_after)[:, None] * division
    follows[is_fixed] = False
    if np.any(~is_fixed & (follows.sum(axis=1) != 1)):
        raise NoPrediction(f"sizes in {kind} do not follow the parts of the cards")
    return np.where(is_fixed, 0, 1 + follows.argmax(axis=1))


def _at_length(template: Array, lengths: Array) -> Array:
    """A section's events as a recording has them: the first column of each group holds a plain value."""
    events = template.copy()
    for start in _GROUPS:
        events[:, start] = template[:, start : start + NUM_TERMS] @ lengths // DENOMINATOR
    return events


def _quantities(events: Array) -> list[tuple[Array, Array]]:
    """All of which an event's size is made that may follow a part, each as a quotient."""
    one = np.ones(len(events), np.int64)
    sizes, is_share = events[:, columns.SIZE_TERMS], events[:, columns.SIZE_RULE] == Size.TENSOR
    share = np.where(is_share, events[:, columns.SHARE], sizes), np.where(is_share, events[:, columns.SHARES], one)
    is_flash = events[:, columns.SIZE_RULE] >= Size.FLASH_0
    heads = np.where(is_flash, events[:, columns.HEADS], share[0]), share[1]
    kv_heads = np.where(is_flash, events[:, columns.KV_HEADS], share[0]), share[1]
    return [heads, kv_heads]


def divided(events: Array, recorded: PartsOfCards, parts: PartsOfCards) -> Array:
    """The events of a card that were recorded with some parts, with others; the sizes of tensors are in them."""
    changed = events.copy()
    then, now = np.array(np.ravel(recorded), np.int64), np.array(np.ravel(parts), np.int64)
    follow = np.flatnonzero((events[:, columns.DIVIDED] > 0) & (events[:, columns.OP] == Op.MALLOC))
    number = events[follow, columns.DIVIDED] - 1
    for column in (columns.HEADS, columns.KV_HEADS, *range(columns.SIZE_TERMS, columns.Q_TERMS)):
        scaled = changed[follow, column] * now[number]
        if np.any(scaled % then[number]):
            raise NoPrediction("an allocation is no whole share of what was recorded")
        changed[follow, column] = scaled // then[number]
    return changed
