"""A model of ExLlamaV2 for one case: opened, loaded, filled, decoded from."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from bench.core.case import DEFAULT_SCENARIO, Case
from bench.core.outcome import Phase
from bench.core.split import Split, SplitBy
from bench.engines.exllamav2.schedule import endless
from bench.engines.exllamav2.spec import SPEC
from bench.engines.exllamav2.tabbyapi import MAX_OUTPUT_LEN, chunk_tokens
from bench.engines.reading import Reading
from bench.trace.passes import Pass
from bench.worker.engines.exllamav2.attribution import of_draft, of_vision
from bench.worker.engines.exllamav2.choices import cache_class, choose_attention, divided_cache_class, read_back
from bench.worker.engines.exllamav2.drafts import mark_draft, with_draft
from bench.worker.engines.exllamav2.generator import Served, require_generator
from bench.worker.engines.exllamav2.progress import telling_chunks
from bench.worker.engines.exllamav2.readable import read_config, refusals_explained
from bench.worker.engines.exllamav2.tensor_parallel import free_gib, require_same_cards, require_tensor_parallel
from bench.worker.engines.exllamav2.vision import load_tower, require_tower, tower_tensors
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Placed, Tell, Unsupported
from bench.worker.interfaces.given import Given

_WITH_KEYS_AND_VALUES = ("Attention", "ParallelDecoder")


class ExLlamaV2Session:
    """See `bench.worker.interfaces.engine.Session`."""

    def __init__(self, case: Case, machine: Machine) -> None:
        """Raises `Unsupported` for a config.json that the engine refuses."""
        read_config(case.model.config)
        self._draft = None if case.of_draft is None else ExLlamaV2Session(case.of_draft, machine)
        self._case = case
        self._split = Split.parse(case.split) if case.split is not None else Split(SplitBy.AUTO) if case.lazy else None
        self._machine = machine
        self._config: Any = None
        self._model: Any = None
        self._tower: Any = None
        self._cache: Any = None
        self._served: Served | None = None
        # A generator's jobs share the one sequence of its cache.
        self._sequences = case.batch_size if case.scenario == DEFAULT_SCENARIO else 1
        self._ids = torch.zeros((self._sequences, case.max_seq_len), dtype=torch.long)

    def open(self, directory: Path, draft: Path | None = None) -> Reading:
        """Reads ExLlamaV2Config and sets the lengths and the attention switches of the case."""
        drafts = None
        if draft is not None:
            drafts = self._drafting.open(draft)
            mark_draft(self._drafting._config)
        from exllamav2.config import ExLlamaV2Config

        case = self._case
        with refusals_explained():
            config = self._config = ExLlamaV2Config(str(directory))
        config.max_seq_len = case.max_seq_len  # the RoPE tables follow this, not the cache
        config.max_batch_size = self._sequences
        config.max_input_len = chunk_tokens(case.load_as, case.max_input_len, case.max_seq_len)
        if case.load_as is not None:
            config.max_output_len = MAX_OUTPUT_LEN
        config.max_attention_size = case.max_attention_size
        attention = choose_attention(config, case.attention, self._machine)
        if reason := endless(case.max_seq_len, case.max_attention_size, attention):
            raise Unsupported(reason)
        if case.scenario != DEFAULT_SCENARIO:
            require_generator(case, config, attention)
        reading = read_back(config, attention)
        if drafts is not None and drafts.attention != attention:
            raise Unsupported(
                f"draft.model={case.draft_name} is run with {drafts.attention} and {case.model.name} with {attention}: "
                "the generator has one table of pages for both; give an attention that both can, or another model"
            )
        if case.vision:
            require_tower(config)
        if self._is_split(SplitBy.TENSOR_PARALLEL):
            require_tensor_parallel(case, config, reading)
        return reading

    def build(self) -> None:
        """Makes ExLlamaV2, and with autosplit the lazy cache."""
        from exllamav2.model import ExLlamaV2

        if self._draft is not None:
            self._draft.build()
        self._model = ExLlamaV2(self._config)
        if self._is_split(SplitBy.AUTO):
            self._cache = self._new_cache(lazy=True)

    def load_vision(self, tell: Tell | None = None) -> None:
        """`ExLlamaV2VisionTower(config).load()`, before the language model is loaded, as TabbyAPI does it."""
        with of_vision():
            self._tower = load_tower(self._config, tell)

    def load(self, tell: Tell | None = None) -> None:
        """`load()`, or what the split says; `lazy` alone means `load_autosplit(cache)` with its defaults.

        As a server loads it, autosplit is for the last token's logits alone, and has the server's reserve on one card.
        """
        case, split = self._case, self._split or Split(SplitBy.GPU_SPLIT)
        gpu_split = None if split.gpu_split_gib is None else list(split.gpu_split_gib)
        if split.by is SplitBy.AUTO:
            reserve = split.reserve_bytes
            if case.load_as is not None and reserve is None:
                reserve = SPEC.servers[case.load_as].reserves(len(case.devices))
            self._model.load_autosplit(
                self._cache,
                reserve_vram=None if reserve is None else list(reserve),
                last_id_only=case.load_as is not None,
                callback=tell,
            )
        elif split.by is SplitBy.GPU_SPLIT:
            self._model.load(gpu_split, callback=tell)
        else:

            def told(done: int, total: int) -> None:  # before the first module too, when it is known what goes where
                require_same_cards(self._model.tp_context)
                if tell is not None:
                    tell(done, total)

            self._model.load_tp(
                gpu_split or free_gib(),
                callback=told,
                expect_cache_tokens=case.cache_tokens,
                expect_cache_base=cache_class(case.cache),
            )

    def load_draft(self, tell: Tell | None = None) -> None:
        """As the model; TabbyAPI and the engine's own example load it first, too."""
        with of_draft():
            self._drafting.load(tell)

    def make_draft_cache(self) -> None:
        """As that of the model."""
        with of_draft():
            self._drafting.make_cache()

    def make_cache(self) -> None:
        """Makes the cache where it is not lazy."""
        if not self._is_split(SplitBy.AUTO):
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

    def try_a_chunk(self) -> None:
        """`forward(..., preprocess_only=True)` of `max_input_len` tokens, as one sequence."""
        ids = torch.zeros((1, self._config.max_input_len), dtype=torch.long)
        self._model.forward(ids, cache=self._cache, preprocess_only=True)

    def trim(self) -> None:
        """`torch.cuda.empty_cache()`, of all cards."""
        gc.collect()
        torch.cuda.empty_cache()

    def serve(self) -> None:
        """`ExLlamaV2DynamicGenerator`."""
        draft = None if self._draft is None else (self._draft._model, self._draft._cache)
        self._served = Served(self._model, self._cache, self._case, draft)

    def begin(self, jobs: int, tokens: int, new_tokens: int, tell: Tell | None = None) -> None:
        """See `Served.begin`."""
        self._running.begin(jobs, tokens, new_tokens, tell)

    def generate(self, tokens: int, tell: Tell | None = None) -> None:
        """See `Served.generate`."""
        self._running.generate(tokens, tell)

    @property
    def _drafting(self) -> ExLlamaV2Session:
        assert self._draft is not None
        return self._draft

    @property
    def _running(self) -> Served:
        assert self._served is not None
        return self._served

    def host_buffers_bytes(self) -> int | None:
        """See `Served.host_buffers_bytes`."""
        return None if self._served is None else self._served.host_buffers_bytes()

    def given(self) -> Given | None:
        """See `Served.given`."""
        return None if self._served is None else self._served.given()

    def resident_tensors(self) -> dict[str, Iterable[Any]]:
        """From the model's and the cache's own objects."""
        contexts = [context for context in self._model.device_context if context is not None]
        caches = getattr(self._cache, "caches", [self._cache])  # of a divided one, each card's
        temporary = [pair for cache in caches for pair in getattr(cache, "temp_tensors", {}).values()]
        served = [] if self._served is None else self._served.resident_tensors()
        own: dict[str, Iterable[Any]] = {
            "weights": _weights(self._model),
            "vision": [] if self._tower is None else tower_tensors(self._tower),
            "cache": [*self._cache.all_tensors(), *(tensor for pair in temporary for tensor in pair), *served],
            "scratch": [context.scratch for context in contexts],
            "rope": [
                tensor
                for tables in [*contexts, self._model.tp_context]
                if tables is not None
                for tensor in [*(tables.sin or []), *(tables.cos or [])]
            ],
        }
        return own if self._draft is None else with_draft(own, self._draft.resident_tensors())

    def placement(self) -> list[Placed]:
        """By the devices that the engine gave its modules; the embeddings are on the host."""
        divided, modules = self._model.tp_context, self._model.modules[1:]
        placed = []
        for index in range(len(self._machine.cards)):
            if divided is None:
                there = [module for module in modules if module.device_idx == index]
            else:
                there = modules if index in divided.all_devs else []
            layers = sum(module.name in _WITH_KEYS_AND_VALUES for module in there)
            if self._tower is not None and not index:
                there = [*self._tower.modules, *there]
            placed.append(Placed([f"{module.key} ({module.name})" for module in there], layers))
        return placed

    def forward(self, each: Pass) -> None:
        """One pass more; of a prefill one chunk, whether the engine would split it or not."""
        if self._served is not None:
            self._served.forward(each)
            return
        self._cache.current_seq_len = each.k_len - each.q_len
        if each.phase == Phase.DECODE:
            self._decode_one()
        else:
            ids = torch.zeros((self._sequences, each.q_len), dtype=torch.long)
            self._model.forward_chunk(input_ids=ids, cache=self._cache, preprocess_only=True)

    def _decode_one(self) -> None:
        # The generators move every token's logits to the host as fp32, and sample there. Of a pass of one token it is
        # the last anyway; a divided model cannot be asked for it (the head is given a list).
        last_id_only = not self._is_split(SplitBy.TENSOR_PARALLEL)
        self._model.forward(self._ids[:, :1], self._cache, last_id_only=last_id_only).float().cpu()

    def _is_split(self, by: SplitBy) -> bool:
        return self._split is not None and self._split.by is by

    def _new_cache(self, **how: bool) -> Any:
        make = cache_class(self._case.cache)
        if self._is_split(SplitBy.TENSOR_PARALLEL):
            make = functools.partial(divided_cache_class(), base=make)
        tokens = self._case.cache_tokens // self._sequences
        return make(self._model, batch_size=self._sequences, max_seq_len=tokens, **how)

    def _telling(self, tokens: int, tell: Tell | None) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if tell is None else telling_chunks(self._model, self._cache, tokens, tell)


def _weights(model: Any) -> list[torch.Tensor]:
    tensors: list[Any] = []
    for module in model.modules:
        for part in [module, *module.submodules]:
            if q_tensors := getattr(part, "q_tensors", None):
                divided = q_tensors if isinstance(q_tensors, list) else [q_tensors]
                tensors += [tensor for each in divided for tensor in each.values()]
            if getattr(part, "linear", None) is not None:
                tensors += [part.linear.weight, part.linear.bias]
            for name in ("weight", "bias"):
                own = getattr(part, name, None)
                tensors += own if isinstance(own, list) else [own]
    return [tensor for tensor in tensors if isinstance(tensor, torch.Tensor) and tensor.is_cuda]
