"""The lengths at which the engine is recorded: enough to determine how sizes depend on the lengths.

With too few there are fewer predictions, not wrong ones: the solver refuses lengths that are undetermined
(`bench.trace.solve`).
"""

from __future__ import annotations

from itertools import pairwise

from bench.core.case import PAGE
from bench.core.outcome import Phase
from bench.engines.exllamav2.served import chunks_of, ends_of_prompts, k_len_of, pages_of, proposals_of
from bench.engines.exllamav2.traits import Traits
from bench.scenarios.forward import DECODE_TOKENS, PROMPT_TOKENS
from bench.trace.passes import Pass

_SHORTEST = 2 * PROMPT_TOKENS


def whole_lengths(traits: Traits) -> list[int]:
    """The lengths at which a case is recorded from its beginning to its end."""
    if traits.is_served:
        return _served_lengths(traits)
    reach = min(traits.max_input_len, traits.native_max_seq_len // 4)
    filled = [2 * reach + 5 * reach // 8, 3 * reach + reach // 4]
    return [max(tokens, _SHORTEST) + DECODE_TOKENS + (traits.cut_window or 0) for tokens in filled]


def _served_lengths(traits: Traits) -> list[int]:
    """The same of a generator, in whole pages: so long that each chunk has room after another.

    A job may be longer than the model's own limit.
    """
    chunk, window = pages_of(traits.max_input_len), pages_of(traits.cut_window or 0)
    first = 3 * chunk + window
    return [first * PAGE, (first + chunk) * PAGE]


def larger_caches(traits: Traits) -> list[tuple[int, int]]:
    """Of a generator one of those lengths, with a page more in the cache than its jobs ask for."""
    if not traits.is_served:
        return []
    length = whole_lengths(traits)[-1]
    return [(length, traits.work(length).cache_size + PAGE)]


def load_lengths(traits: Traits) -> list[int]:
    """The lengths at which no more is recorded than loading and the making of the cache.

    With `whole_lengths` there are at least two in each range of lengths in which loading is the same (sizes are linear
    there), and three where a chunk as long as the case is forwarded (sizes are quadratic).
    """
    both = list(filter(None, (traits, traits.of_draft())))
    edges = {each.rope_limit for each in both}
    forwards = traits.forwards_a_chunk
    if forwards:
        edges |= {traits.max_input_len, *(each.cut_window for each in both)}
    whole = whole_lengths(traits)
    longest = max(traits.native_max_seq_len, *whole)
    bounds = [_SHORTEST, *sorted(edge for edge in edges if edge and _SHORTEST < edge < longest), longest]
    lengths = [] if forwards else [longest]  # one to spare
    for low, high in pairwise(bounds):
        quarters = (1, 2, 3) if forwards and high <= traits.max_input_len else (1, 3)
        there = sum(low < length <= high for length in whole)
        lengths += [low + (high - low) * quarter // 4 for quarter in quarters][there:]
    if forwards:
        lengths = [max(1, length // traits.even_tokens) * traits.even_tokens for length in lengths]
        if traits.cut_window in bounds:
            lengths.append(traits.cut_window)  # the keys are cut there, but nothing is cut off
    if traits.is_served:  # its cache has whole pages
        lengths = list(dict.fromkeys(pages_of(length) * PAGE for length in lengths))
    return [length for length in lengths if length not in whole]


def extra_passes(max_seq_len: int, traits: Traits) -> list[Pass]:
    """What is recorded after the scenario: passes that it comes to at other lengths.

    All that there are at the first of `whole_lengths`; one of each kind at others shows what `max_seq_len` has to do
    with it.
    """
    window = traits.cut_window
    if traits.is_served:
        passes = _served_passes(traits, max_seq_len)
    elif window is None:
        passes = _prefills(traits, 0, max_seq_len)
    else:
        below, beyond = _prefills(traits, 0, window - 1), _prefills(traits, window, max_seq_len - window)
        fitting = sorted({each.q_len for each in (*below, *beyond) if each.q_len <= window})
        at = [traits.make_pass(Phase.PREFILL, q_len, window) for q_len in fitting]
        passes = [*below, *at, *beyond, traits.make_pass(Phase.DECODE, 1, window)]
    if max_seq_len == whole_lengths(traits)[0]:
        return passes
    if traits.draft is not None:  # what a pass leaves to the next one, the next one must free
        return passes
    return list({each.kind: each for each in passes}.values())


def _prefills(traits: Traits, past: int, room: int) -> list[Pass]:
    """Chunks of several lengths after `past` tokens, and again half of `room` later; none goes beyond it."""
    unit = max(1, min(room // 8, traits.max_input_len // 4) // traits.even_tokens) * traits.even_tokens
    lengths = {unit, 2 * unit, 3 * unit, *range(1, traits.special_tokens + 1)}
    if traits.num_experts > 1:  # as the last chunk of whole pages
        lengths |= {2 * unit - DECODE_TOKENS, 3 * unit - DECODE_TOKENS, 4 * unit - DECODE_TOKENS}
    return [
        traits.make_pass(Phase.PREFILL, q_len, before + q_len)
        for before in (past, past + room // 2)
        for q_len in sorted(lengths)
        if 0 < q_len <= traits.max_input_len and before + q_len <= past + room
    ]


def _served_passes(traits: Traits, room: int) -> list[Pass]:
    """Chunks of each length that a prompt of a generator has, at two places of each kind; some on scattered pages.

    And a token of one job near its beginning and at its end: where there are several, there need not be one alone.
    """
    window = traits.cut_window
    decoded = 1 + traits.draft_tokens
    passes = []
    for k_len in (PAGE, room, *([] if window is None else [window])):
        passes += [*proposals_of(traits, Phase.DECODE, k_len - decoded - 1, Phase.DECODE)]
        passes.append(traits.make_pass(Phase.DECODE, decoded, k_len))
    for q_len in (traits.max_input_len, *ends_of_prompts(traits)):
        begins = {0, pages_of(max(0, room - q_len) // 2) * PAGE}
        if window is not None:
            begins |= {max(0, window - q_len - 1), window - q_len, window, window + (room - window - q_len) // 2}
        for begin in sorted(begins):
            if begin < 0 or k_len_of(traits, begin + q_len) > room:
                continue
            passes += chunks_of(traits, begin, q_len)
            if traits.is_paged and q_len > PAGE:
                passes += chunks_of(traits, begin, q_len, is_scattered=True)
    return passes
