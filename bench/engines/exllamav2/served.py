"""The passes that ExLlamaV2's dynamic generator makes of its jobs (generator/dynamic.py), paged and not.

Pages that are free are given out in the order of their last use. As every job ends before the next ones begin, and no
two prompts are alike, that order is always that of the pages' numbers, from some page on: a ring.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.core.case import PAGE
from bench.core.outcome import Phase
from bench.engines.exllamav2.traits import Traits
from bench.scenarios.base import Act, Step
from bench.scenarios.forward import DECODE_TOKENS
from bench.trace.passes import Pass

SERVE = f"{Phase.CACHE}_served"  # the kind of the section in which it is made, with pages like the cache's


def pages_of(tokens: int) -> int:
    """How many pages hold so many tokens."""
    return -(-tokens // PAGE)


@dataclass
class Generator:
    """The generator's state between steps: the next page of the ring, and the jobs that run.

    `firsts` are the first pages of the jobs, `held` the tokens of each job's sequence: all are equally long.
    """

    traits: Traits
    pages: int
    next_page: int = 0
    firsts: list[int] = field(default_factory=list)
    held: int = 0

    def passes(self, step: Step) -> Iterator[Pass]:
        """What the generator makes of a BEGIN or a GENERATE."""
        if step.act is Act.BEGIN:
            self._take_pages(step)
            yield from self._prompts(step)
            yield from self._decode(step.phase, None if step.name is None else f"{step.name}_first")
        else:
            for done in range(step.tokens):
                yield from self._decode(step.phase, None if step.name is None else f"{step.name}_{done}")

    def _take_pages(self, step: Step) -> None:
        each = pages_of(step.tokens + step.new_tokens + self.traits.draft_tokens)
        self.firsts = [(self.next_page + job * each) % self.pages for job in range(step.jobs)]
        self.next_page = (self.next_page + step.jobs * each) % self.pages
        self.held = step.tokens

    def _prompts(self, step: Step) -> Iterator[Pass]:
        """A chunk of each job in turn; of a prompt all but its last token, which comes with the first decoded one."""
        begin, tokens = 0, step.tokens - 1
        while begin < tokens:
            end = begin + self.traits.max_input_len
            end = min(end // PAGE * PAGE if self.traits.is_paged else end, tokens)
            for first in self.firsts:
                is_scattered = self.traits.is_paged and self._wraps(first, begin, end - begin)
                for each in chunks_of(self.traits, begin, end - begin, step.name, is_scattered):
                    yield each._replace(phase=step.phase)
            begin = end

    def _decode(self, phase: str, name: str | None) -> Iterator[Pass]:
        """A token of all jobs together, with those that are proposed; none of them is taken."""
        begin, jobs = self.held - 1, len(self.firsts)
        self.held += 1
        kind = name or (Phase.DECODE if jobs == 1 else f"{Phase.DECODE}_of_{jobs}")
        yield from proposals_of(self.traits, phase, begin, kind)
        q_len = 1 + self.traits.draft_tokens
        each = self.traits.make_pass(phase, q_len, k_len_of(self.traits, begin + q_len), kind)
        # Of several jobs keys and values are always made apart.
        wraps = jobs == 1 and self.traits.is_paged and self._wraps(self.firsts[0], begin, q_len)
        yield _scattered(each) if wraps else each

    def _wraps(self, first: int, begin: int, q_len: int) -> bool:
        """Whether the tokens of a job lie on pages that do not follow each other: the last of the ring, and page 0."""
        pages = range(begin // PAGE + 1, pages_of(begin + q_len))
        return any((first + page) % self.pages == 0 for page in pages)


def ends_of_prompts(traits: Traits) -> list[int]:
    """The tokens of the last chunk of a prompt, the longest first.

    Jobs have a whole number of pages, but for those as long as any: they may have `odd_tokens` more.
    """
    left = DECODE_TOKENS + traits.draft_tokens + 2  # its first token, and the prompt's last one, which is decoded
    whole = traits.max_input_len if not traits.is_paged else traits.max_input_len // PAGE * PAGE
    beyond = {0, traits.odd_tokens}
    ends = {whole + odd - left - page * PAGE for page in range(pages_of(whole) + 1) for odd in beyond}
    return sorted((end for end in ends if 0 < end <= whole), reverse=True)


def k_len_of(traits: Traits, tokens: int) -> int:
    """The keys that a pass reckons with, after which a job has so many tokens: in whole pages, if there are any."""
    return pages_of(tokens) * PAGE if traits.is_paged else tokens


def chunk_of(traits: Traits, begin: int, q_len: int, name: str | None = None, is_scattered: bool = False) -> Pass:
    """A chunk of a prompt after `begin` tokens. Those of a kind are as long: prompts end in few ways."""
    k_len = k_len_of(traits, begin + q_len)
    each = traits.make_pass(Phase.PREFILL, q_len, k_len, name or f"{Phase.PREFILL}_of_{q_len}")
    return _scattered(each) if is_scattered else each


def chunks_of(
    traits: Traits, begin: int, q_len: int, name: str | None = None, is_scattered: bool = False
) -> Iterator[Pass]:
    """The same, after that of the draft model if there is one."""
    for each in filter(None, (traits.of_draft(), traits)):
        chunk = chunk_of(each, begin, q_len, name, is_scattered)
        yield chunk if each is traits else drafted(chunk)


def proposals_of(traits: Traits, phase: str, begin: int, kind: str) -> Iterator[Pass]:
    """The passes of a draft model before one of the `kind`: a token each, and one more for the last one's keys.

    Its table of pages has room for one token more than are proposed, from the first of them on.
    """
    draft, tokens = traits.of_draft(), traits.draft_tokens
    if draft is None:
        return
    for number in range(tokens + 1):
        k_len = k_len_of(traits, begin + 2 + tokens) if traits.is_paged else begin + number + 1
        which = "_first" if number == 0 else "_last" if number == tokens else ""
        yield drafted(draft.make_pass(phase, 1, k_len, f"{kind}{which}"))


def drafted(each: Pass) -> Pass:
    """A pass of the draft model, which has kinds of its own."""
    return each._replace(kind=f"{DRAFT}_{each.kind}", of_draft=True)


DRAFT = "draft"
_SCATTERED = "_scattered"


def _scattered(each: Pass) -> Pass:
    """A pass over pages that do not follow each other: its keys and values are made apart, then put there."""
    return each._replace(kind=each.kind + _SCATTERED)


def is_scattered(each: Pass) -> bool:
    """Whether it is one."""
    return each.kind.endswith(_SCATTERED)
