"""A model of ExLlamaV2 for one case: opened, loaded, filled, decoded from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from bench.core.case import Case
from bench.core.outcome import Phase
from bench.engines.exllamav2.schedule import endless
from bench.engines.reading import Reading
from bench.trace.passes import Pass
from bench.worker.engines.exllamav2.choices import cache_class, choose_attention, read_back
from bench.worker.engines.exllamav2.progress import telling_chunks
from bench.worker.engines.exllamav2.readable import read_config, refusals_explained
from bench.worker.interfaces.card import Card
from bench.worker.interfaces.engine import Tell, Unsupported


class ExLlamaV2Session:
    """See `bench.worker.interfaces.engine.Session`."""

    def __init__(self, case: Case, card: Card) -> None:
        """Raises `Unsupported` for a config.json that the engine refuses."""
        read_config(case.model.config)
        self._case = case
        self._card = card
        self._config: Any = None
        self._model: Any = None
        self._cache: Any = None
        self._ids = torch.zeros((case.batch_size, case.max_seq_len), dtype=torch.long)

    def open(self, directory: Path) -> Reading:
        """Reads ExLlamaV2Config and sets the lengths and the attention switches of the case."""
        from exllamav2.config import ExLlamaV2Config

        case = self._case
        with refusals_explained():
            config = self._config = ExLlamaV2Config(str(directory))
        config.max_seq_len = case.max_seq_len  # the RoPE tables follow this, not the cache
        config.max_batch_size = case.batch_size
        config.max_input_len = case.max_input_len
        config.max_attention_size = case.max_attention_size
        attention = choose_attention(config, case.attention, self._card)
        if reason := endless(case.max_seq_len, case.max_attention_size, attention):
            raise Unsupported(reason)
        return read_back(config, attention)

    def build(self) -> None:
        """Makes ExLlamaV2, and with `lazy` the lazy cache."""
        from exllamav2.model import ExLlamaV2

        self._model = ExLlamaV2(self._config)
        if self._case.lazy:
            self._cache = self._new_cache(lazy=True)

    def load(self, tell: Tell | None = None) -> None:
        """`load()`, or with `lazy` `load_autosplit(cache)` with its defaults."""
        if self._case.lazy:
            self._model.load_autosplit(self._cache, callback=tell)
        else:
            self._model.load(callback=tell)

    def make_cache(self) -> None:
        """Makes the cache where it is not lazy."""
        if not self._case.lazy:
            self._cache = self._new_cache()

    def fill(self, tokens: int, tell: Tell | None = None) -> None:
        """`forward(..., preprocess_only=True)`, which splits the prompt into chunks itself."""
        self._cache.current_seq_len = 0
        with self._telling(tokens, tell):
            self._model.forward(self._ids[:, :tokens], self._cache, preprocess_only=True)

    def decode(self, start: int, tokens: int, tell: Tell | None = None) -> None:
        """`forward(..., last_id_only=True)` token by token; logits go to the host as fp32."""
        self._cache.current_seq_len = start
        for done in range(tokens):
            if tell is not None:
                tell(done, tokens)
            self._decode_one()

    def resident_tensors(self) -> dict[str, Iterable[Any]]:
        """From the model's and the cache's own objects."""
        contexts = [context for context in self._model.device_context if context is not None]
        temporary = getattr(self._cache, "temp_tensors", {}).values()
        return {
            "weights": _weights(self._model),
            "cache": [*self._cache.all_tensors(), *(tensor for pair in temporary for tensor in pair)],
            "scratch": [context.scratch for context in contexts],
            "rope": [tensor for context in contexts for tensor in [*(context.sin or []), *(context.cos or [])]],
        }

    def forward(self, each: Pass) -> None:
        """One pass more; of a prefill one chunk, whether the engine would split it or not."""
        self._cache.current_seq_len = each.k_len - each.q_len
        if each.phase == Phase.DECODE:
            self._decode_one()
        else:
            ids = torch.zeros((self._case.batch_size, each.q_len), dtype=torch.long)
            self._model.forward_chunk(input_ids=ids, cache=self._cache, preprocess_only=True)

    def _decode_one(self) -> None:
        # The generators move every token's logits to the host as fp32, and sample there.
        self._model.forward(self._ids[:, :1], self._cache, last_id_only=True).float().cpu()

    def _new_cache(self, **how: bool) -> Any:
        make = cache_class(self._case.cache)
        return make(self._model, batch_size=self._case.batch_size, max_seq_len=self._case.max_seq_len, **how)

    def _telling(self, tokens: int, tell: Tell | None) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if tell is None else telling_chunks(self._model, self._cache, tokens, tell)


def _weights(model: Any) -> list[torch.Tensor]:
    tensors: list[Any] = []
    for module in model.modules:
        for part in [module, *module.submodules]:
            if getattr(part, "q_tensors", None):
                tensors += list(part.q_tensors.values())
            if getattr(part, "linear", None) is not None:
                tensors += [part.linear.weight, part.linear.bias]
            tensors += [getattr(part, "weight", None), getattr(part, "bias", None)]
    return [tensor for tensor in tensors if isinstance(tensor, torch.Tensor) and tensor.is_cuda]
