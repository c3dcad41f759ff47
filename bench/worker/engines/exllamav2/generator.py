"""ExLlamaV2's dynamic generator with jobs whose text does not matter (generator/dynamic.py)."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import torch

from bench.core.case import PAGE, Case
from bench.core.outcome import Phase
from bench.engines.exllamav2.served import is_scattered, pages_of
from bench.trace.passes import Pass
from bench.worker.engines.jobs import Jobs
from bench.worker.interfaces.engine import Tell, Unsupported

_QUERIES = 8  # ExLlamaV2DynamicGenerator: max_q_size, the most tokens of a job in one pass


class Tokenizer:
    """All that the generator asks of a tokenizer, where nobody reads the text: every token is one letter."""

    eos_token_id = -1  # no token ends a job

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._pieces = ["x"] * vocab_size

    def get_id_to_piece_list(self, include_special_tokens: bool = False) -> list[str]:
        """The text of each token."""
        return self._pieces

    def get_vocab_size(self) -> int:
        """The number of tokens."""
        return self._vocab_size


def is_paged(config: Any) -> bool:
    """Whether the generator has a cache of pages: it does so by flash-attn alone."""
    return not config.no_flash_attn


def require_generator(case: Case, config: Any, attention: str) -> None:
    """Raises `Unsupported` for what ExLlamaV2DynamicGenerator asserts not to be, and says what to give."""
    queries = case.max_input_len
    most = case.max_batch_size or queries // _QUERIES
    if case.batch_size > 1 and attention != "flash":
        raise Unsupported(
            f"batch_size={case.batch_size} attention={attention}: without flash-attn ExLlamaV2's generator has no "
            "pages, and takes one job at a time; give batch_size=1, or a card that flash-attn runs on"
        )
    if attention == "flash" and queries % PAGE:
        raise Unsupported(
            f"max_input_len={queries}: the generator's chunks are whole pages of {PAGE} tokens; give "
            f"{queries // PAGE * PAGE or PAGE}"
        )
    if most * _QUERIES > queries:
        raise Unsupported(
            f"max_batch_size={most} max_input_len={queries}: the generator wants room for {_QUERIES} tokens of each "
            f"job in a chunk; give max_input_len={-(-most * _QUERIES // PAGE) * PAGE}, or fewer jobs"
        )
    if case.batch_size > most:
        raise Unsupported(
            f"batch_size={case.batch_size}: with max_input_len={queries} the generator takes {most} jobs at a time; "
            f"give max_batch_size={case.batch_size} and max_input_len={-(-case.batch_size * _QUERIES // PAGE) * PAGE}"
        )


class Served(Jobs):
    """A generator, and the jobs that were begun last; `draft` are the model that proposes tokens, and its cache."""

    def __init__(self, model: Any, cache: Any, case: Case, draft: tuple[Any, Any] | None = None) -> None:
        self._engine: Any = importlib.import_module("exllamav2.generator")
        draft_model, draft_cache = draft or (None, None)
        generator = self._engine.ExLlamaV2DynamicGenerator(
            model,
            cache,
            Tokenizer(model.config.vocab_size),
            draft_model=draft_model,
            draft_cache=draft_cache,
            max_batch_size=case.max_batch_size,
            paged=is_paged(model.config),
            use_ngram_draft=case.draft == "ngram",
            num_draft_tokens=case.num_draft_tokens or 0,
        )
        # Of a prompt both look up every token.
        vocab_size = min(each.config.vocab_size for each in (model, draft_model) if each is not None)
        super().__init__(generator, vocab_size)
        self._params: Any = None  # of the last pass that was made for itself, and what that pass has left
        self._logits: Any = None
        self._proposed: Any = None

    def begin(self, jobs: int, tokens: int, new_tokens: int, tell: Tell | None = None) -> None:
        """`enqueue` and `iterate`, with the sampling of ExLlamaV2Sampler.Settings as it is."""
        generator = self._generator
        self._note()
        self._prompt_tokens = tokens
        if generator.num_remaining_jobs():
            generator.clear_queue()
        self._jobs = [
            self._engine.ExLlamaV2DynamicJob(
                input_ids=self._prompt(tokens),
                max_new_tokens=new_tokens + generator.num_draft_tokens,  # a job ends so many before
                gen_settings=self._engine.ExLlamaV2Sampler.Settings(),
            )
            for _ in range(jobs)
        ]
        generator.enqueue(self._jobs)
        self._until_each_has_a_token(tell)

    def forward(self, each: Pass) -> None:
        """One pass more, as it makes them: a chunk of a prompt, or one token of a job.

        A draft model's comes before the model's. Of a chunk both have the same table of pages, of tokens they have
        not; there its logits, and the token with the highest, are held until those of its next pass are there.
        """
        is_decoded = each.phase == Phase.DECODE
        if each.of_draft or is_decoded or self._params is None:
            self._params = self._params_of(each)
        params, generator = self._params, self._generator
        model, cache = generator.model, generator.cache
        if each.of_draft:
            model, cache = generator.draft_model, generator.draft_cache
        is_last = each.of_draft and each.kind.endswith("_last")
        made = model.forward_chunk(
            input_ids=torch.zeros((1, each.q_len), dtype=torch.long),
            preprocess_only=not is_decoded or is_last,
            attn_params=params,
            cache=cache,
        )
        if is_decoded and not each.of_draft:
            generator.logits_pinned[:1, : each.q_len].copy_(made["logits"])
        elif is_decoded and not is_last:
            self._logits = made.pop("logits")
            self._proposed = torch.argmax(self._logits, dim=-1)
            generator.draft_ids_pinned[:1, :1].copy_(self._proposed)
        if is_decoded or not each.of_draft:
            self._params = None
        if is_last:  # as the engine's function does that ends here
            del params
            self._logits = self._proposed = None

    def _params_of(self, each: Pass) -> Any:
        """Of a pass on the first pages of the cache."""
        pages = torch.arange(pages_of(each.k_len), dtype=torch.int32)
        begin = each.k_len - each.q_len
        if self._generator.paged:
            begin = begin // PAGE * PAGE
        if is_scattered(each):
            pages = pages.roll(-1)
        begins = torch.tensor([begin], dtype=torch.int32)
        return self._generator.get_paged_params(1, pages.unsqueeze(0), begins, each.q_len)

    def host_buffers_bytes(self) -> int:
        """The logits of as many jobs as it takes, and the tokens of each page, which it keeps to share them."""
        generator = self._generator
        buffers = [generator.logits_pinned, *(page.sequence for page in generator.all_pages)]
        return sum(buffer.numel() * buffer.dtype.itemsize for buffer in buffers)

    def resident_tensors(self) -> Iterable[Any]:
        """The pages that it defragments its cache with."""
        return (self._generator.defrag_buffer or {}).values()
