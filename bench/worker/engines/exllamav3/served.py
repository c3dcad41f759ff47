"""exllamav3's Generator with jobs whose text does not matter (exllamav3/generator/generator.py, job.py)."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from bench.core.case import PAGE, Case
from bench.engines.exllamav3.served import MOST_JOBS, MOST_SLOTS, NGRAM_TOKENS
from bench.worker.engines.jobs import Jobs
from bench.worker.interfaces.engine import Tell, Unsupported

_SEED = 1


class Tokenizer:
    """All that the generator asks of a tokenizer, where nobody reads the text: every token is one letter."""

    def __init__(self, vocab_size: int) -> None:
        self.actual_vocab_size = vocab_size
        self._pieces = ["x"] * vocab_size

    def get_id_to_piece_list(self, include_special_tokens: bool = False) -> list[str]:
        """The text of each token."""
        return self._pieces


def cache_options(case: Case) -> dict[str, int]:
    """What the cache of a generator is told beside its size: its slots for states, and how far those can go back."""
    slots = {} if case.max_batch_size is None else {"max_batch_size": case.max_batch_size}
    return slots | {"max_history": case.num_draft_tokens or 0}


def require_generator(case: Case, is_recurrent: bool) -> None:
    """Raises `Unsupported` for what Generator asserts not to be, or would do otherwise, and says what to give."""
    if case.max_input_len < PAGE:
        raise Unsupported(
            f"max_input_len={case.max_input_len}: exllamav3's generator works off prompts in pages of {PAGE} tokens; "
            f"give {PAGE} or more"
        )
    most = case.max_batch_size or (MOST_SLOTS if is_recurrent else MOST_JOBS)
    if case.batch_size > most:
        raise Unsupported(
            f"batch_size={case.batch_size}: exllamav3 takes {most} jobs at a time by default"
            f"{', as this model has a state for each' if is_recurrent else ''}; give max_batch_size={case.batch_size}"
        )


class Served(Jobs):
    """A generator, and the jobs that were begun last."""

    def __init__(self, model: Any, cache: Any, case: Case) -> None:
        self._engine: Any = importlib.import_module("exllamav3.generator")
        self._new_sampler: Any = importlib.import_module("exllamav3.generator.sampler").DefaultSampler
        told = {"max_batch_size": case.max_batch_size, "num_draft_tokens": case.num_draft_tokens}
        generator = self._engine.Generator(
            model,
            cache,
            Tokenizer(model.config.vocab_size),
            max_chunk_size=case.max_input_len,
            ngram_match_min=0 if case.draft is None else NGRAM_TOKENS,
            **{name: value for name, value in told.items() if value is not None},
        )
        # By itself it keeps what one of the jobs ends with, and goes on with the others.
        generator.reap_failed_job = _raise
        super().__init__(generator, model.config.vocab_size)
        # Each job that runs has its own, which keeps a workspace: those of the jobs before are used again.
        self._samplers: list[Any] = []

    def begin(self, jobs: int, tokens: int, new_tokens: int, tell: Tell | None = None) -> None:
        """`enqueue` and `iterate`, with the engine's own sampler. Raises `Unsupported` where a job would be cut."""
        generator = self._generator
        self._note()
        if generator.num_remaining_jobs():
            generator.clear_queue()
        self._samplers += [self._new_sampler() for _ in range(jobs - len(self._samplers))]
        self._jobs = [
            self._engine.Job(self._prompt(tokens), new_tokens, seed=_SEED, sampler=sampler)
            for sampler in self._samplers[:jobs]
        ]
        self._prompt_tokens = tokens
        generator.enqueue(self._jobs)
        if any(job.max_new_tokens != new_tokens for job in self._jobs):  # it says nothing of it
            raise Unsupported(
                f"a job of {tokens} tokens of prompt gets {self._jobs[0].max_new_tokens} of {new_tokens} tokens in a "
                f"cache of {generator.max_total_tokens}: exllamav3 cuts it; give a larger cache_size or "
                "a shorter max_seq_len"
            )
        self._until_each_has_a_token(tell)

    def host_buffers_bytes(self) -> int:
        """Tables of a pass, the tokens of each page, which it keeps to share them, and states that it has put by."""
        generator = self._generator
        buffers: list[torch.Tensor] = [
            *(page.sequence for page in generator.pagetable.all_pages),
            *generator.staging_buffers.values(),
        ]
        buffers += [arena[0] for arena in generator.stage_arenas.values()]
        optional = ("sample_pinned", "draft_sample_pinned", "draft_input_ids_pinned", "draft_ids_pinned")
        buffers += [each for name in optional if (each := getattr(generator, name, None)) is not None]
        states = 0 if generator.recurrent_cache is None else int(generator.recurrent_cache.update_total_size())
        return sum(buffer.nbytes for buffer in buffers) + states


def _raise(job: Any, error: Exception, results: Any) -> None:
    raise error
