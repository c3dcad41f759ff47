"""A model of exllamav3 for one case: opened, loaded with its cache, filled, decoded from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench.core.case import DEFAULT_SCENARIO, PAGE, Case
from bench.core.split import Split, SplitBy
from bench.engines.exllamav3.chunks import chunks
from bench.engines.reading import Reading
from bench.engines.registry import engine_of
from bench.trace.passes import Pass
from bench.worker.engines.exllamav3.choices import cache_of, read_back
from bench.worker.engines.exllamav3.generator import Passes
from bench.worker.engines.exllamav3.readable import open_model
from bench.worker.engines.exllamav3.served import Served, require_generator
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Placed, Tell, Unsupported
from bench.worker.interfaces.given import Given


class ExLlamaV3Session:
    """See `bench.worker.interfaces.engine.Session`."""

    def __init__(self, case: Case, machine: Machine) -> None:
        self._case = case
        self._machine = machine
        self._split = Split.parse(case.split) if case.split is not None else Split(SplitBy.AUTO) if case.lazy else None
        self._model: Any = None
        self._cache: Any = None
        self._passes: Passes | None = None
        self._served: Served | None = None

    def open(self, directory: Path, draft: Path | None = None) -> Reading:
        """Reads the directory, and makes the model's modules, which have no tensors yet."""
        self._model = open_model(directory, self._case.model.config)
        if self._case.scenario != DEFAULT_SCENARIO:
            require_generator(self._case, bool(self._model.caps.get("recurrent_states")))
        if self._case.turns > 1 and self._model.caps.get("recurrent_states"):
            raise Unsupported("exllamav3 is run for one turn here with layers of states or rings; take turns=1")
        return read_back(self._model)

    @property
    def model(self) -> Any:
        """The engine's model, once the directory was opened."""
        return self._model

    def build(self) -> None:
        """Makes the cache, whose tensors each layer makes as it is loaded."""
        kind = engine_of("exllamav3").caches[self._case.cache]
        self._cache = cache_of(self._model, self._case, kind.key_bits, kind.value_bits)

    def load_draft(self, tell: Tell | None = None) -> None:
        """Raises `Unsupported`."""
        raise Unsupported("exllamav3 is not run with a draft model here; take draft=none")

    def make_draft_cache(self) -> None:
        """There is no draft model."""
        self.load_draft()

    def load(self, tell: Tell | None = None) -> None:
        """`load(device="cuda:0")`, or what the split says; `lazy` alone means `load()`, which is autosplit."""
        with self._telling(tell):
            self._model.load(**self._how_to_load(), max_chunk_size=self._case.max_input_len)
        self._passes = Passes(self._model, self._cache, self._case.batch_size, self._case.max_seq_len)

    def _how_to_load(self) -> dict[str, Any]:
        split = self._split
        if split is None:
            return {"device": "cuda:0"}
        if split.by is SplitBy.GPU_SPLIT:
            assert split.gpu_split_gib is not None
            return {"use_per_device": list(split.gpu_split_gib)}
        if split.by is not SplitBy.AUTO:
            raise Unsupported("exllamav3 is not run with tensor parallelism here; take split=auto")
        reserve = split.reserve_bytes
        return {} if reserve is None else {"reserve_per_device": [size / (1 << 30) for size in reserve]}

    def make_cache(self) -> None:
        """It is there since the model is loaded."""

    def fill(self, tokens: int, tell: Tell | None = None) -> None:
        """One sequence after the other, in the Generator's chunks of `max_input_len`."""
        passes, total = self._running, tokens * self._case.batch_size
        passes.restart()
        for sequence in range(self._case.batch_size):
            for start, end in chunks(tokens, self._case.max_input_len, passes.is_recurrent):
                passes.prefill(sequence, start, end)
                if tell is not None:
                    tell(sequence * tokens + end, total)

    def decode(self, start: int, tokens: int, tell: Tell | None = None) -> None:
        """Token by token, for all sequences at once; logits go to the host as they are."""
        for done in range(tokens):
            if tell is not None:
                tell(done, tokens)
            self._running.decode(start + done).cpu()

    @property
    def chunk_tokens(self) -> int:
        """The tokens of a chunk that is followed by others."""
        return self._case.max_input_len // PAGE * PAGE

    def forward(self, each: Pass) -> None:
        """One pass more: a chunk of a sequence of its own."""
        self._running.place(each.k_len - each.q_len)
        self._running.prefill(0, each.k_len - each.q_len, each.k_len)

    @property
    def _running(self) -> Passes:
        assert self._passes is not None
        return self._passes

    def load_vision(self, tell: Tell | None = None) -> None:
        """Refused before anything runs (`bench.engines.exllamav3.refusals`)."""
        raise Unsupported("exllamav3's vision towers are not loaded here")

    def try_a_chunk(self) -> None:
        """There is no server that loads it here."""
        self.serve()

    def trim(self) -> None:
        """There is none."""
        self.serve()

    def serve(self) -> None:
        """`Generator`."""
        self._served = Served(self._model, self._cache, self._case)

    def begin(self, jobs: int, tokens: int, new_tokens: int, tell: Tell | None = None) -> None:
        """See `Served.begin`."""
        self._serving.begin(jobs, tokens, new_tokens, tell)

    def generate(self, tokens: int, tell: Tell | None = None) -> None:
        """See `Served.generate`."""
        self._serving.generate(tokens, tell)

    @property
    def _serving(self) -> Served:
        assert self._served is not None
        return self._served

    def host_buffers_bytes(self) -> int | None:
        """See `Served.host_buffers_bytes`."""
        return None if self._served is None else self._served.host_buffers_bytes()

    def given(self) -> Given | None:
        """See `Served.given`."""
        return None if self._served is None else self._served.given()

    def resident_tensors(self) -> dict[str, Iterable[Any]]:
        """Weights with the slabs that they were cut from, keys and values with states, and what all layers share."""
        from exllamav3.util.tensor import g_tensor_cache

        cached = [tensor for layer in self._cache.layers.values() for tensor in layer.get_tensors()]
        states = [each for layer in self._cache.recurrent_layers.values() for each in vars(layer).values()]
        rope = [getattr(module, "rope", None) for module in self._model]
        return {
            "weights": _tensors_of(self._model),
            "cache": [*cached, *filter(_on_card, states)],
            "scratch": [tensor for _, tensor in g_tensor_cache.cache.values()],
            "rope": [each.inv_freq for each in rope if each is not None],
        }

    def placement(self) -> list[Placed]:
        """By the devices that the engine gave its modules; the embeddings are on the host."""
        with_cache = {id(module) for module in self._model.get_cache_layers()}
        placed = []
        for index in range(len(self._machine.cards)):
            there = [each for each in self._model.modules if _index_of(each) == index]
            layers = sum(any(id(part) in with_cache for part in module) for module in there)
            placed.append(Placed([f"{module.key} ({type(module).__name__})" for module in there], layers))
        return placed

    @contextlib.contextmanager
    def _telling(self, tell: Tell | None) -> Iterator[None]:
        """While it lasts, `tell` hears of each module that was loaded; a load on one device takes no callback."""
        modules = self._model.modules
        if tell is None:
            yield
            return
        for number, module in enumerate(modules, 1):
            module.load = _telling_load(module.load, number, len(modules), tell)
        try:
            yield
        finally:
            for module in modules:
                del module.load  # the class's own again


def _telling_load(load: Any, number: int, total: int, tell: Tell) -> Any:
    def load_and_tell(*args: Any, **kwargs: Any) -> Any:
        result = load(*args, **kwargs)
        tell(number, total)
        return result

    return load_and_tell


def _index_of(module: Any) -> int | None:
    device = None if module.device is None else torch.device(module.device)
    return device.index if device is not None and device.type == "cuda" else None


def _tensors_of(model: Any) -> list[torch.Tensor]:
    """Every tensor on a card that a module or its matrix holds itself."""
    found = []
    for module in model:
        for holder in (module, getattr(module, "inner", None)):
            found += [each for each in vars(holder).values() if _on_card(each)] if holder is not None else []
    return found


def _on_card(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == "cuda"
