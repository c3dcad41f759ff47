"""exllamav3's rules for one search, as a trace asks for them: its passes, which are alike, and what to record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.core.case import DEFAULT_SCENARIO, PAGE, Case
from bench.core.outcome import Phase
from bench.engines.exllamav3 import chunks
from bench.engines.exllamav3.refusals import is_latent
from bench.engines.exllamav3.served import SERVE, SPARE_TOKENS, Generator, ends_of_prompts, more_lengths
from bench.engines.exllamav3.tables import TABLE_TOKENS, table_tokens
from bench.scenarios.base import Act, Step, Work
from bench.scenarios.forward import DECODE_TOKENS
from bench.scenarios.registry import scenario_of
from bench.trace.passes import Pass, Schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of a prompt: keys that are read in pieces by several blocks from so many on, if the card has multiprocessors to spare
# (exllamav3/modules/attention_fn/triton_paged.py, bound_kv), and the pages of a quantised cache that are unpacked at
# once (_qc_staging_pages).
_SPLIT_TOKENS = 8192
_STAGED_TOKENS = 256 * PAGE
_FEW_ROWS = 16  # that are worked off as decoded tokens are (paged_attn_triton_decode)
_TOO_SHORT = "exllamav3 does not load by autosplit with a cache of {:,} tokens, which is less than a chunk of {:,}"
FIRST, LATER = "_first", "_of_later_sequences"  # of chunks, where the first one makes tables


class Setup(NamedTuple):
    """See `bench.trace.passes.Setup`. `longest` is the most tokens that a search goes to.

    A pass of a decoded token has as `k_len` what its tables have room for, as its sizes follow from that alone. Where
    layers decode outside of graphs, keys are shared out among more blocks the more tokens the tables have room for, up
    to `shared_tokens`; 0 where none do. Autosplit tries each module on `tried_tokens`, for which the cache must have
    room; 0 where it does not load. Layers with a window keep `ring_tokens` of each sequence in a ring (0: none do),
    of which a chunk moves what it keeps: until that is full, by how much there is. With a generator `batch_size` are
    its jobs, `cache_size` is as a `Case` has it, and `draft_tokens` come with each token that a job gets; with a
    `max_seq_len` lengths are those of the cache.
    """

    attention: str
    max_input_len: int
    batch_size: int
    longest: int
    quantised_cache: bool
    scenario: str = DEFAULT_SCENARIO
    shared_tokens: int = 0
    makes_tables: bool = False
    has_states: bool = False
    tried_tokens: int = 0
    ring_tokens: int = 0
    cache_size: int | None = None
    draft_tokens: int = 0
    max_seq_len: int | None = None
    turns: int = 1

    def schedule(self, length: int) -> Schedule:
        """Every section of a case of that length in tokens."""
        import numpy as np

        _, held = self.lengths_at(length)
        if held < self.tried_tokens:  # modules/attn.py, prepare_flash_attn: an AssertionError
            return Schedule(
                [], np.zeros(0, np.int64), np.zeros((0, 2), np.int64), _TOO_SHORT.format(held, self.tried_tokens)
            )
        passes = self._all_passes(length, with_prompts=True)
        distinct = list({each.kind: each for each in passes}.values())
        numbers = {each.kind: number for number, each in enumerate(distinct)}
        which: NDArray[np.int64] = np.array([numbers[each.kind] for each in passes], np.int64)
        lengths: NDArray[np.int64] = np.array([(each.q_len, each.k_len) for each in passes], np.int64)
        return Schedule(distinct, which, lengths.reshape(-1, 2))

    def _all_passes(self, length: int, with_prompts: bool) -> list[Pass]:
        """Every section of a case; without prompts those of any length are left out."""
        scenario = scenario_of(self.scenario)
        max_seq_len, cache_tokens = self.lengths_at(length)
        work = Work(max_seq_len, self.batch_size, cache_tokens, self.draft_tokens, SPARE_TOKENS, turns=self.turns)
        steps = scenario.steps(work, scenario.simulated_pace)
        if self.scenario != DEFAULT_SCENARIO:
            return list(self._served(steps, with_prompts))
        widths: set[int] = set()
        ring = Ring(self.ring_tokens)
        found: list[Pass] = []
        for step in steps:
            passes = list(self._passes(step, widths, ring, max_seq_len))
            is_any_prompt = step.act is Act.FILL and step.name is None
            found += passes if with_prompts or not is_any_prompt else []
        return found

    def _served(self, steps: Iterable[Step], with_prompts: bool) -> Iterator[Pass]:
        """What the engine's generator makes of its steps."""
        generator = Generator(self.max_input_len, self.draft_tokens, self.prefill, self.batch_size)
        for step in steps:
            if step.act in (Act.BEGIN, Act.GENERATE):
                for each in generator.passes(step, with_prompts):
                    shared = self._shared(each.k_len) if each.kind.startswith(Phase.DECODE) else ""
                    yield each._replace(kind=each.kind + shared)
            else:
                kind = SERVE if step.act is Act.SERVE else step.phase
                yield Pass(step.phase, kind)

    def _passes(self, step: Step, widths: set[int], ring: Ring, max_seq_len: int) -> Iterator[Pass]:
        """What the engine makes of a step; `widths` are those of the tables that it has made by then."""
        if step.act is Act.LOAD:
            yield Pass(Phase.LOAD, Phase.LOAD)
        elif step.act is Act.CACHE:
            yield Pass(Phase.CACHE, Phase.CACHE)
        elif step.act is Act.FILL:
            ring.fill(step.tokens)
            for sequence in range(self.batch_size):
                for start, end in chunks.chunks(step.tokens, self.max_input_len, self.has_states):
                    # What runs as a graph runs once as it is, is captured, and then takes nothing.
                    name = None if step.name is None else f"{step.name}_{min(sequence, 2)}"
                    if name is not None and end - start <= _FEW_ROWS:
                        name += self._shared(max_seq_len)
                    yield self.prefill(step.phase, end - start, end, name, is_later=sequence > 0)
        else:
            for done in range(step.tokens):
                k_len = table_tokens(step.start + done)
                kind = f"{step.name}_{done}" if step.name is not None else str(step.phase)
                if step.name is None and k_len not in widths:
                    kind += "_in_wider_tables"
                widths.add(k_len)
                if ring.turns():
                    kind += "_that_turns"
                yield Pass(step.phase, kind + self._shared(k_len), 1, k_len)

    def _shared(self, table: int) -> str:
        """What is told of a kind whose keys are not shared out among all blocks yet, in tables of so many tokens."""
        return f"_in_tables_of_{table}" if table < self.shared_tokens else ""

    def prefill(self, phase: str, q_len: int, k_len: int, name: str | None = None, is_later: bool = False) -> Pass:
        """A chunk of a prompt. Of a kind are those that are as long, and read the keys in the same way.

        Where the first chunk `makes_tables` for all that follow, as with experts, later sequences find them.
        """
        kind = name or f"{phase}_of_{q_len}"
        if k_len >= _SPLIT_TOKENS:
            kind += "_far"
        if self.quantised_cache and q_len >= PAGE and k_len > _STAGED_TOKENS:
            kind += f"_in_{-(-k_len // _STAGED_TOKENS)}"
        if name is None and k_len - q_len < self.ring_tokens:
            kind += f"_after_{k_len - q_len}"
        if self.makes_tables and name is None:
            kind += LATER if is_later else FIRST if k_len == q_len else ""
        return Pass(phase, kind, q_len, k_len)

    def chunk_count(self, tokens: int) -> int:
        """Into how many chunks a prompt of so many tokens is split, that of each sequence by itself."""
        return self.batch_size * sum(1 for _ in chunks.chunks(tokens, self.max_input_len, self.has_states))

    def whole_lengths(self) -> list[int]:
        """The lengths in tokens at which a case is recorded to its end."""
        longest = max(self.longest if self.quantised_cache else 0, _SPLIT_TOKENS + 2 * self.max_input_len)
        pages = -(-longest // PAGE)
        least = max(TABLE_TOKENS, self._all_shared_tokens, self.tried_tokens, self.ring_tokens)
        lengths = [pages * PAGE, (pages + 4) * PAGE, least + 5 * PAGE]
        if self.scenario == DEFAULT_SCENARIO:
            return lengths
        shortest = -(-self.tried_tokens // (PAGE * self.batch_size)) * PAGE
        return lengths + [max(length, shortest) for length in more_lengths(self.draft_tokens)]

    def larger_caches(self) -> list[tuple[int, int]]:
        """Of a generator two of those lengths, with a page more in the cache than its jobs ask for.

        The shortest is decoded with the tables of the first job alone, the other has chunks of all kinds. Jobs that
        share a smaller cache begin with one that runs alone, whose sizes did not follow the lengths: none is recorded.
        """
        if self.scenario == DEFAULT_SCENARIO:
            return []
        _, long, *shorter = self.whole_lengths()
        return [(length, length * self.batch_size + PAGE) for length in (long, min(shorter))]

    def within(self, cache_size: int | None, max_seq_len: int | None = None, turns: int = 1) -> Setup:
        """The same rules for jobs that share a cache of so many tokens, or by the cache's length at a `max_seq_len`."""
        return self._replace(cache_size=cache_size, max_seq_len=max_seq_len, turns=turns)

    def lengths_at(self, length: int) -> tuple[int, int]:
        """`max_seq_len` of a case of that length, and the tokens of its cache."""
        if self.max_seq_len is not None:
            return self.max_seq_len, length
        return length, self.cache_size or length * self.batch_size

    def load_lengths(self) -> list[int]:
        """The lengths in tokens at which only loading is recorded; one to spare."""
        least = max(2 * PAGE, self._all_shared_tokens, self.tried_tokens)
        return [least, least + 18 * PAGE, least + 97 * PAGE]

    @property
    def _all_shared_tokens(self) -> int:
        """In whole pages."""
        return -(-self.shared_tokens // PAGE) * PAGE

    def extra_passes(self, max_seq_len: int) -> list[Pass]:
        """Chunks of each length that a prompt may end with, where they are alike at both ends and amid.

        One of each kind at another length shows what `max_seq_len` has to do with it.
        """
        reaches = [0, _SPLIT_TOKENS]
        if self.quantised_cache:
            reaches += range(_STAGED_TOKENS + 1, max_seq_len, _STAGED_TOKENS)
        found: list[Pass] = []
        sequences = (False, True) if self.makes_tables and self.batch_size > 1 else (False,)
        for q_len in self._chunk_lengths():
            for first, end in zip(reaches, [*reaches[1:], max_seq_len + 1], strict=True):
                least = -(-max(self.ring_tokens, first - q_len) // PAGE) * PAGE
                most = (min(end - 1, max_seq_len) - q_len) // PAGE * PAGE
                middle = (least + most) // 2 // PAGE * PAGE
                pasts = {least, middle, most, *([PAGE] if self.makes_tables and least < PAGE else [])}
                if not first:  # until the rings are full
                    pasts.update(range(0, self.ring_tokens, PAGE if q_len % PAGE else self._chunk_lengths()[0]))
                found += [
                    self.prefill(Phase.PREFILL, q_len, past + q_len, is_later=is_later)
                    for is_later in sequences
                    for past in sorted(pasts)
                    if (least if first else 0) <= past <= most
                ]
        if max_seq_len == self.whole_lengths()[0]:
            return found
        return list({each.kind: each for each in found}.values())

    def _chunk_lengths(self) -> list[int]:
        """The lengths of a prompt's chunks: a whole one, and those that it may end with."""
        step = self.max_input_len
        whole, rest = step // PAGE * PAGE, PAGE - DECODE_TOKENS
        if self.scenario != DEFAULT_SCENARIO:
            return [whole, *ends_of_prompts(step, self.draft_tokens)]
        if self.has_states:  # the last pages by themselves, and then what is no whole one
            return [*range(whole, 0, -PAGE), rest]
        return [whole, *range(rest, step, PAGE)]

    def whole_passes(self, max_seq_len: int) -> list[Pass]:
        """Every section of a case as it is recorded: chunks of a prompt of any length are among the extra ones."""
        return self._all_passes(max_seq_len, with_prompts=False) + self.extra_passes(max_seq_len)

    def longest_chunk(self, max_seq_len: int) -> int:
        """Nothing depends on it."""
        return self.max_input_len

    def in_words(self, each: Pass) -> str:
        """A pass, for people."""
        after = f" of {each.q_len} tokens after {each.k_len - each.q_len}" if each.q_len > 1 else ""
        return f"a {each.phase}{after} ({each.kind})"

    def to_plain(self) -> dict[str, Any]:
        """The fields by name, as a trace keeps them."""
        return self._asdict()


def asked_by(case: Case) -> dict[str, Any]:
    """What a case asks for beside its model and its lengths."""
    return {"scenario": case.scenario, "cache_size": case.cache_size, "draft_tokens": case.num_draft_tokens or 0}


def is_unpacked(case: Case) -> bool:
    """Whether pages of a quantised cache are unpacked to be read; latents are read as they are (cache/mla.py)."""
    return case.cache != "FP16" and not is_latent(case.model.config)


class Ring:
    """How many tokens the ring of a layer with a window holds (modules/sliding_attn.py); `size` 0: there is none."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = 0

    def fill(self, tokens: int) -> None:
        """A prompt from its beginning."""
        self._held = ring_tokens_after(tokens, self._size)

    def turns(self) -> bool:
        """Whether all is moved by a page to make room for the next token (_decode_state_prep), which is then there."""
        is_full = 0 < self._size <= self._held
        self._held += 1 - (PAGE if is_full else 0)
        return is_full


def ring_tokens_after(tokens: int, size: int) -> int:
    """What a ring of `size` tokens, whole pages, holds of a prompt: it begins with a page (decode_flash_attn)."""
    return min(tokens, size - -tokens % PAGE)


def unread_setup(case: Case, attention: str) -> Setup:
    """The rules for `case` as far as they are known without the engine."""
    return Setup(
        attention=attention,
        max_input_len=case.max_input_len,
        batch_size=case.batch_size,
        longest=case.max_seq_len,
        quantised_cache=is_unpacked(case),
        **asked_by(case),
    )
