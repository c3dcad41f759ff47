"""From recordings at different lengths to a trace: each allocation's size as a polynomial in the lengths.

Nothing is fitted: every coefficient is exact, and every recorded size is reproduced to the byte. Sections of one kind
must hold the same events; a kind that does not is `refused`. What the recorded lengths of a kind leave open goes into
the trace as `null_space`: a length is predicted only if its terms are orthogonal to all of it.

An example. Three chunks of 256 tokens were recorded; each allocated 32 KiB and 4 bytes for each token in the cache:

>>> recorded = [(256, 256, 1024), (256, 512, 1024), (256, 512, 2048)]  # q_len, k_len, max_seq_len
>>> terms = np.stack([columns.terms(*lengths) for lengths in recorded])
>>> sizes = np.array([[32768 + 4 * k_len] for _, k_len, _ in recorded])
>>> (_coefficients("prefill", terms, sizes) // DENOMINATOR).tolist()
[[32768, 0, 4, 0, 0, 0, 0]]

The terms are 1, max_seq_len, k_len, q_len, q·k, q·q, and the tokens of the cache, of which there is none here. The
32 KiB may be 128 bytes for each token of the chunk: with q_len = 256 throughout, three terms depend on the others.

>>> null_space = np.array(_null_space(terms))
>>> null_space.tolist()
[[-256, 0, 0, 1, 0, 0, 0], [0, 0, -256, 0, 1, 0, 0], [-65536, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1]]
>>> null_space @ columns.terms(256, 7936, 8192)  # a chunk of 256 anywhere can be predicted
array([0, 0, 0, 0])
>>> null_space @ columns.terms(128, 7936, 8192)  # of one of 128 the size is unknown
array([    -128, -1015808,   -49152,        0])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from bench.core.outcome import Phase
from bench.trace import template as columns
from bench.trace.handed_on import handed_on
from bench.trace.parametric import ParametricTrace, deepen
from bench.trace.passes import CACHE_OF_DRAFT, NoPrediction, Pass, Setup
from bench.trace.recording import DraftDepth, Op, Recording, Section, Size
from bench.trace.template import DENOMINATOR, NUM_COLUMNS, NUM_TERMS, Array, spans_of_layers


def solve(recordings: Sequence[Recording], setup: Setup, depth: int, repeats: bool | None = None) -> ParametricTrace:
    """The trace of one search; `depth` is the number of layers of the whole model.

    `repeats` says whether the layers that were recorded must show how they repeat; by default that is so where the
    model has more of them.

    Raises `NoPrediction` for recordings of other passes than the scenario's.
    """
    first = recordings[0]
    samples: dict[str, list[_Sample]] = {}
    for recording in recordings:
        for each, section in _told_apart(recording, setup):
            terms = _terms(each, recording, setup)
            samples.setdefault(each.kind, []).append(_Sample(each, terms, section, recording.first_layer))
    draft = first.draft
    tensors: dict[str, int] = {}
    templates, null_space, refused = {}, {}, {}
    for kind, found in samples.items():
        whole = DraftDepth(first.num_layers, first.period, depth)
        if draft is not None and found[0].each.of_draft:
            whole = draft
        try:
            template = _solve_kind(kind, [_as_array(sample, whole.num_layers, tensors) for sample in found], found)
            if whole.num_layers < whole.depth if repeats is None else repeats:
                _require_repetition(kind, template, whole.num_layers, whole.period)
            if draft is not None:  # from now on, all kinds have layers of one sort
                template = deepen(template, *whole)
        except NoPrediction as reason:
            refused[kind] = str(reason)
        else:
            templates[kind] = template
            null_space[kind] = _null_space([sample.terms for sample in found])
    if not templates:
        raise NoPrediction(next(iter(refused.values())))
    num_layers, period = first.num_layers, first.period
    if draft is not None:
        num_layers = depth = max(depth, draft.depth)
        period = math.lcm(period, draft.period)
    return ParametricTrace(
        templates=templates,
        null_space=null_space,
        refused=refused,
        tensors=list(tensors),
        num_layers=num_layers,
        period=period,
        depth=depth,
        setup=setup,
        scratch=[list(pair) for pair in first.scratch],
        draft_scratch=[list(pair) for pair in first.draft_scratch],
    )


def sections_of(
    recording: Recording, setup: Setup, num_layers: int, tensors: dict[str, int]
) -> list[tuple[str, Array, Array]]:
    """The kind of each section, the terms of its lengths, and its events as an array with a plain value for each size.

    `tensors` are the numbers of the names; unknown ones are put there.
    """
    sections = []
    for each, section in _told_apart(recording, setup):
        terms = _terms(each, recording, setup)
        sample = _Sample(each, terms, section, recording.first_layer)
        sections.append((each.kind, terms, _as_array(sample, num_layers, tensors)))
    return sections


class _Sample(NamedTuple):
    """One section that was recorded, with the values of the terms there."""

    each: Pass
    terms: Array
    section: Section
    first_layer: int


def _of(recording: Recording, setup: Setup) -> Setup:
    """The rules for the cache that was recorded."""
    return setup if recording.cache_size is None else setup.within(recording.cache_size)


def _terms(each: Pass, recording: Recording, setup: Setup) -> Array:
    """What the sizes of a section are made of, as numbers."""
    return columns.terms(each.q_len, each.k_len, *_of(recording, setup).lengths_at(recording.max_seq_len))


def _told_apart(recording: Recording, setup: Setup) -> list[tuple[Pass, Section]]:
    """Each section with its pass. Raises `NoPrediction` where the engine made other passes than expected."""
    max_seq_len, setup = recording.max_seq_len, _of(recording, setup)
    if recording.is_whole:
        passes = setup.whole_passes(max_seq_len)
    else:
        passes = setup.schedule(max_seq_len).passes()[: len(recording.sections)]
    outside = [each.phase == Phase.LOAD or each.kind.startswith(Phase.CACHE) for each in passes]
    lengths = [(0, 0) if out else (each.q_len, each.k_len) for each, out in zip(passes, outside, strict=True)]
    if [(section.q_len, section.k_len) for section in recording.sections] != lengths:
        raise NoPrediction(f"the engine's passes at {max_seq_len} tokens are not the expected ones")
    sections = recording.sections if recording.draft is None else handed_on(recording.sections)
    return list(zip(passes, sections, strict=True))


def _as_array(sample: _Sample, num_layers: int, tensors: dict[str, int]) -> Array:
    """The section's events; the first column of each group of coefficients holds a plain value."""
    each, _, section, first_layer = sample
    rows = np.zeros((len(section.events), NUM_COLUMNS), np.int64)
    makes_cache = each.kind.startswith(Phase.CACHE) or each.kind == CACHE_OF_DRAFT
    layers = _layers_of_cache(section, num_layers) if makes_cache else None
    made: dict[int, int] = {}
    for index, (event, row) in enumerate(zip(section.events, rows, strict=True)):
        row[columns.OP], row[columns.STREAM], row[columns.PART] = event.op, event.stream, event.part
        row[columns.LAYER] = event.layer if layers is None else layers[index]
        row[columns.MODULE] = event.module
        row[columns.SIZE_RULE], row[columns.TENSOR] = event.size, -1
        row[columns.BLOCK] = index
        if event.op in (Op.MALLOC, Op.TAKE):
            made[event.block] = index
        elif event.op in (Op.FREE, Op.LEAVE):
            if event.block not in made:
                raise NoPrediction(f"{each.kind} frees what an earlier section allocated")
            row[columns.BLOCK] = made[event.block]
        if event.tensor is not None:
            name = event.tensor.replace(f".{event.layer + first_layer}.", ".{}.", 1)
            row[columns.TENSOR] = tensors.setdefault(name, len(tensors))
            row[columns.SHARE], row[columns.SHARES] = event.share
        elif event.call is not None:
            call = event.call
            row[columns.BATCH : columns.WINDOW + 1] = (
                call.batch_size,
                call.num_heads,
                call.head_dim,
                call.num_kv_heads,
                call.window,
            )
            row[columns.Q_TERMS], row[columns.K_TERMS] = call.q_len, call.k_len
        elif event.size in (Size.LENGTHS, Size.SORT):
            row[columns.SIZE_TERMS] = event.size_bytes
    if np.any(np.diff(rows[:, columns.LAYER]) < 0):
        raise NoPrediction(f"{each.kind} does not go through the layers in order")
    return rows


def _layers_of_cache(section: Section, num_layers: int) -> list[int]:
    """A cache is made layer by layer, with some tensors for all of them at the end."""
    if not section.events:
        return []
    sizes = [event.size_bytes for event in section.events]
    for rest in range(len(sizes) + 1):
        each, remainder = divmod(len(sizes) - rest, num_layers)
        if not remainder and sizes[: each * num_layers] == sizes[:each] * num_layers:
            return [index // each for index in range(each * num_layers)] + [num_layers] * rest
    raise NoPrediction("the cache is not made layer by layer")


def _solve_kind(kind: str, sections: list[Array], samples: list[_Sample]) -> Array:
    """One template for all sections of a kind."""
    template = sections[0].copy()
    for events in sections:
        if events.shape != template.shape or np.any(
            events[:, : columns.SIZE_TERMS] != template[:, : columns.SIZE_TERMS]
        ):
            raise NoPrediction(f"{kind} sections differ in more than their sizes")
    terms = np.stack([sample.terms for sample in samples])
    for start in (columns.SIZE_TERMS, columns.Q_TERMS, columns.K_TERMS):
        values = np.stack([events[:, start] for events in sections])
        template[:, start : start + NUM_TERMS] = _coefficients(kind, terms, values)
    return template


def _coefficients(kind: str, terms: Array, values: Array) -> Array:
    """Whole c [events, NUM_TERMS] with `terms @ c.T == DENOMINATOR * values`, over the fewest terms that suffice."""
    coefficients = np.zeros((values.shape[1], NUM_TERMS), np.int64)
    scale = np.maximum(terms.max(axis=0), 1)
    chosen: list[int] = []
    for term in range(NUM_TERMS):
        open_events = np.any(terms @ coefficients.T != values * DENOMINATOR, axis=0)
        if not open_events.any():
            break
        if np.linalg.matrix_rank((terms / scale)[:, [*chosen, term]]) == len(chosen):
            continue  # where only these lengths occur, this term is a sum of others
        chosen.append(term)
        solution = np.linalg.lstsq((terms / scale)[:, chosen], values[:, open_events].astype(float), rcond=None)[0]
        solved = np.zeros((int(open_events.sum()), NUM_TERMS), np.int64)
        solved[:, chosen] = np.rint(solution / scale[chosen][:, None] * DENOMINATOR).T.astype(np.int64)
        coefficients[open_events] = solved
    if np.any(terms @ coefficients.T != values * DENOMINATOR):
        raise NoPrediction(f"sizes in {kind} do not follow the lengths")
    return coefficients


def _null_space(samples: Sequence[Array]) -> list[list[int]]:
    """An integer basis of the null space of the samples' terms: `r · terms == 0` for each row r and each sample.

    Sizes are determined at exactly those lengths whose terms are sums of the samples': they are orthogonal to all rows.
    """
    reduced: list[list[Fraction]] = []  # Gauss and Jordan: each row has a 1 where all others have 0
    pivots: list[int] = []
    for sample in samples:
        row = [Fraction(int(value)) for value in sample]
        for known, pivot in zip(reduced, pivots, strict=True):
            row = [value - row[pivot] * other for value, other in zip(row, known, strict=True)]
        pivot = next((index for index, value in enumerate(row) if value), -1)
        if pivot < 0:
            continue
        row = [value / row[pivot] for value in row]
        reduced = [[v - known[pivot] * other for v, other in zip(known, row, strict=True)] for known in reduced]
        reduced.append(row)
        pivots.append(pivot)
    null_space = []
    for free in sorted(set(range(NUM_TERMS)) - set(pivots)):
        relation = [Fraction(int(index == free)) for index in range(NUM_TERMS)]
        for known, pivot in zip(reduced, pivots, strict=True):
            relation[pivot] = -known[free]
        scale = math.lcm(*(value.denominator for value in relation))
        null_space.append([int(value * scale) for value in relation])
    return null_space


def _require_repetition(kind: str, template: Array, num_layers: int, period: int) -> None:
    """Raises `NoPrediction` unless the last two periods that were recorded are equal, relative to their own layers.

    A buffer beside PyTorch's is told of once a section, by the first layer that wants it: that is no difference.
    """
    template = columns.without(template, Op.BESIDE)
    if num_layers <= columns.SHOWN_PERIODS * period:
        raise NoPrediction(f"{num_layers} layers show too little of how they repeat")
    spans = spans_of_layers(template, num_layers)
    last_of_layer = np.array([last for _, last in spans])

    def told_relatively(first_layer: int) -> Array:
        """A period's events; an allocation by how many layers ago it was made, and how far before that layer's end.

        From the end, because the first layer begins with what is made once for all.
        """
        first, last = spans[first_layer + 1][0], spans[first_layer + period][1]
        events = template[first:last].copy()
        maker = template[events[:, columns.BLOCK], columns.LAYER]
        ago = np.where(maker < 0, -1, events[:, columns.LAYER] - maker)
        events[:, columns.BLOCK] = (last_of_layer[maker + 1] - events[:, columns.BLOCK]) * (num_layers + 2) + ago
        events[:, columns.LAYER] -= first_layer
        return events

    repeated = (columns.SHOWN_PERIODS - 1) * period
    if not np.array_equal(told_relatively(repeated - period), told_relatively(repeated)):
        raise NoPrediction(f"the layers of a model differ in {kind}")
