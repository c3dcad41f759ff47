"""The one scenario: load the model, make its cache, fill the context to the end, decode there.

It runs unchanged on a real card and on a simulated one. After each phase it reports the memory and the seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench.core.case import Case
from bench.core.messages import Entered, Message, PhaseDone, Result, Started, Timings
from bench.core.outcome import Phase
from bench.notes.rules import notes_of_case
from bench.trace.schedule import DECODE_TOKENS, PROMPT_TOKENS, endless
from bench.worker.card import Card
from bench.worker.engine import Unsupported, cache_class, choose_attention, read_back
from bench.worker.progress import Teller, telling_chunks
from bench.worker.readable import read_config, refusals_explained

Emit = Callable[[Message], None]


def run(case: Case, card: Card, layouts: Path, emit: Emit) -> None:
    """Measures `case` on `card`. Whatever goes wrong is raised; what was finished has been emitted by then."""
    card.import_engine()
    from exllamav2.config import ExLlamaV2Config
    from exllamav2.model import ExLlamaV2

    read_config(case.model.config)
    with _phase(Phase.LOAD, card, emit) as load:
        directory = card.model_dir(case, layouts)
        with refusals_explained():
            config = ExLlamaV2Config(str(directory))
        config.max_seq_len = case.max_seq_len  # the RoPE tables follow this, not the cache
        config.max_batch_size = case.batch_size
        config.max_input_len = case.max_input_len
        config.max_attention_size = case.max_attention_size
        attention = choose_attention(config, case.attention, card)
        if reason := endless(case.max_seq_len, case.max_attention_size, attention):
            raise Unsupported(reason)
        notes = notes_of_case(case, read_back(config, attention))
        emit(Started(attention, [*card.notes(), *notes], card.facts()))
        model = ExLlamaV2(config)
        make_cache = cache_class(case.cache)
        sizes = {"batch_size": case.batch_size, "max_seq_len": case.max_seq_len}
        told = Teller(Phase.LOAD, "modules", emit)
        if case.lazy:
            cache = make_cache(model, lazy=True, **sizes)
            load["load_s"] = _seconds(lambda: model.load_autosplit(cache, callback=told))
        else:
            load["load_s"] = _seconds(lambda: model.load(callback=told))
    with _phase(Phase.CACHE, card, emit):
        if not case.lazy:
            cache = make_cache(model, **sizes)
    context = torch.zeros((case.batch_size, case.max_seq_len), dtype=torch.long)
    with _phase(Phase.PREFILL, card, emit) as prefill:
        _restart(model, cache, context[:, :PROMPT_TOKENS])
        _decode(model, cache, context, min(card.warm_up_tokens, case.max_seq_len - PROMPT_TOKENS))
        # As far on every card, however many tokens it decodes: what a prefill takes depends on its length.
        filled = context[:, : case.max_seq_len - DECODE_TOKENS]
        with telling_chunks(model, cache, filled.shape[1], Teller(Phase.PREFILL, "tokens", emit)):
            prefill["prefill_s"] = card.time(lambda: _restart(model, cache, filled), case.repeats)
        prefill["prefill_tokens"] = filled.numel()
    with _phase(Phase.DECODE, card, emit) as decode:
        told = Teller(Phase.DECODE, "tokens", emit)

        def decode_from(start: int) -> list[float]:
            def work() -> None:
                cache.current_seq_len = start
                _decode(model, cache, context, card.decode_tokens, told)

            return card.time(work, case.repeats)

        decode["decode_full_s"] = decode_from(case.max_seq_len - card.decode_tokens)
        decode["decode_s"] = decode_from(PROMPT_TOKENS)
        decode["decode_tokens"] = card.decode_tokens * case.batch_size
    parts = card.parts_at_peak(model, cache)
    emit(Result(parts, [*card.notes(), *notes], card.facts()))  # by now it knows more of itself


def _restart(model: Any, cache: Any, ids: torch.Tensor) -> None:
    cache.current_seq_len = 0
    model.forward(ids, cache, preprocess_only=True)


def _decode(model: Any, cache: Any, context: torch.Tensor, tokens: int, told: Teller | None = None) -> None:
    for done in range(tokens):
        if told is not None:
            told(done, tokens)
        # The generators move every token's logits to the host as fp32, and sample there.
        model.forward(context[:, :1], cache, last_id_only=True).float().cpu()


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def _phase(phase: Phase, card: Card, emit: Emit) -> Iterator[dict[str, Any]]:
    """Reports that `phase` is entered and, once its block is done, what it took; the block may add to the report."""
    emit(Entered(phase))
    data: dict[str, Any] = {}
    started = time.perf_counter()
    yield data
    memory = card.memory()  # waits for the card
    emit(PhaseDone(phase, time.perf_counter() - started, memory, Timings(**data)))
