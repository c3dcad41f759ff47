"""The passes that ExLlamaV2 makes of a scenario's steps, at any length; prompts are split as in model.py, `forward`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bench.core.outcome import Phase
from bench.engines.exllamav2.served import SERVE, Generator, drafted, pages_of
from bench.engines.exllamav2.traits import HOLDS_SCORES, Traits
from bench.scenarios.base import Act, Step
from bench.scenarios.registry import scenario_of
from bench.trace.passes import CACHE_OF_DRAFT, Pass, Schedule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VISION = f"{Phase.LOAD}_vision"  # the kind of the section in which the vision tower is loaded
_TRIED, _TRIMMED = "tried", "trimmed"  # kinds of passes before the first prompt


def endless(max_seq_len: int, max_attention_size: int, attention: str) -> str | None:
    """Why the engine would never end, whatever the card: for the last tokens it forwards chunks of none.

    ExLlamaV2.forward makes a chunk so short that queries times keys stay within `max_attention_size`, down to nothing.
    """
    if attention not in HOLDS_SCORES or max_seq_len <= max_attention_size:
        return None
    return (
        f"max_attention_size={max_attention_size} is less than max_seq_len={max_seq_len}: with attention={attention} "
        "ExLlamaV2 would forward chunks of no token for ever"
    )


def schedule(length: int, traits: Traits) -> list[Pass]:
    """Every section of a case as a pass."""
    return schedule_of(length, traits).passes()


def schedule_of(length: int, traits: Traits) -> Schedule:
    """Every section of a case in arrays."""
    import numpy as np

    from bench.engines.exllamav2.chunks import chunks_of

    scenario, work = scenario_of(traits.scenario), traits.work(length)
    generator = Generator(traits, pages_of(work.cache_size))
    distinct: list[Pass] = []
    which: list[NDArray[np.int64]] = []
    lengths: list[NDArray[np.int64]] = []
    never_ends = None
    for step in scenario.steps(work, scenario.simulated_pace):
        if step.act is Act.FILL and step.name is None:
            chunks = chunks_of(step.tokens, traits.max_input_len, traits.max_attention_size if traits.is_chunked else 0)
            filled = int(chunks[-1, 1]) if len(chunks) else 0
            if filled < step.tokens and never_ends is None:
                never_ends = f"with {filled:,} tokens in the cache, ExLlamaV2's chunks are of none: it never ends"
            # Of a kind are chunks that are as long and on the same side of the sliding window.
            window = traits.cut_window
            sides = np.zeros(len(chunks), np.int64) if window is None else np.sign(chunks[:, 1] - window)
            _, firsts, alike = np.unique(chunks[:, 0] * 3 + sides, return_index=True, return_inverse=True)
            which.append(len(distinct) + alike)
            lengths.append(chunks)
            distinct += [traits.make_pass(step.phase, int(q), int(k)) for q, k in chunks[firsts]]
        else:
            passes = list(_passes(step, work.max_seq_len, traits, generator))
            which.append(np.arange(len(distinct), len(distinct) + len(passes)))
            lengths.append(np.array([(each.q_len, each.k_len) for each in passes], np.int64).reshape(-1, 2))
            distinct += passes
    return Schedule(distinct, np.concatenate(which), np.concatenate(lengths), never_ends)


def chunk_count(tokens: int, traits: Traits) -> int:
    """Into how many chunks a prompt of so many tokens is split."""
    if traits.is_served or not traits.is_chunked:
        return -(-tokens // traits.max_input_len)
    from bench.engines.exllamav2.chunks import chunks_of

    return len(chunks_of(tokens, traits.max_input_len, traits.max_attention_size))


def _passes(step: Step, max_seq_len: int, traits: Traits, generator: Generator) -> Iterable[Pass]:
    """What the engine makes of a step that is no prompt of any length. Lazy loading forwards a chunk as it goes."""
    if step.act is Act.LOAD:
        yield _load(max_seq_len, traits)
    elif step.act is Act.LOAD_DRAFT:
        draft = traits.of_draft()
        assert draft is not None
        yield drafted(_load(max_seq_len, draft))
    elif step.act is Act.CACHE_DRAFT:
        yield Pass(Phase.LOAD, CACHE_OF_DRAFT, of_draft=True)
    elif step.act is Act.VISION:
        yield Pass(Phase.LOAD, VISION)
    elif step.act is Act.CACHE:
        yield Pass(Phase.CACHE, Phase.CACHE)
    elif step.act is Act.TRY:
        chunk = traits.chunk_at(max_seq_len)
        yield traits.make_pass(_TRIED, chunk, chunk)._replace(phase=Phase.CACHE)
    elif step.act is Act.SERVE:
        yield Pass(Phase.CACHE, SERVE)
    elif step.act is Act.TRIM:
        yield Pass(Phase.CACHE, _TRIMMED)
    elif step.act in (Act.BEGIN, Act.GENERATE):
        yield from generator.passes(step)
    elif step.act is Act.FILL:
        yield traits.make_pass(step.phase, step.tokens, step.tokens, step.name)
    else:
        for done in range(step.tokens):
            name = None if step.name is None else f"{step.name}_{done}"
            yield traits.make_pass(step.phase, 1, step.start + done + 1, name)


def _load(max_seq_len: int, traits: Traits) -> Pass:
    loading = traits.chunk_at(max_seq_len) if traits.lazy else 0
    load = traits.make_pass(Phase.LOAD, loading, loading)
    if traits.rope_limit is not None and max_seq_len > traits.rope_limit:
        load = load._replace(kind=f"{load.kind}_extended")
    return load
