"""What a recorder must know of exllamav3: how a case is made shallow, and where its passes and layers begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from bench.core.case import MAX_SEQ_LEN, PAGE, Case
from bench.engines.exllamav3.setup import Setup, table_tokens
from bench.engines.reading import find_number
from bench.trace.passes import NoPrediction
from bench.worker.engines.base import Listener, Recordable
from bench.worker.engines.exllamav3.choices import read_back
from bench.worker.engines.exllamav3.generator import Passes
from bench.worker.engines.exllamav3.readable import read_model
from bench.worker.engines.exllamav3.shallow import shallow
from bench.worker.interfaces.card import Machine


def recordable(case: Case, machine: Machine) -> Recordable:
    """How `case` is recorded. Raises `Unsupported`, and `NoPrediction`."""
    model = read_model(case.model.config)
    if model.caps.get("recurrent_states"):
        raise NoPrediction("exllamav3: layers with states beside the cache are not predicted, but found by runs")
    reading = read_back(model)
    native = find_number(case.model.config, "max_position_embeddings")
    setup = Setup(
        attention=reading.attention,
        max_input_len=case.max_input_len,
        batch_size=case.batch_size,
        longest=min(max(int(native or 0), PAGE), MAX_SEQ_LEN),
        quantised_cache=case.cache != "FP16",
        scenario=case.scenario,
    )
    fewer, num_layers, period = shallow(case, model)
    depth = sum(module.layer_idx is not None for module in model.modules)
    return Recordable(fewer, num_layers, period, depth, setup, reading, apart=True)


@contextmanager
def marked(listener: Listener) -> Iterator[None]:
    """While it lasts, models, passes and layers tell `listener` that they begin."""
    from exllamav3 import Model

    load, prefill, decode = Model.load, Passes.prefill, Passes.decode

    def marked_load(self: Any, *args: Any, **kwargs: Any) -> Any:
        layer, number = -1, -1
        for module in self.modules:
            own = module.layer_idx
            before, layer = layer, own if own is not None else (-1 if layer < 0 else self.config.num_hidden_layers)
            number = number + 1 if layer == before else 0
            for name in ("load", "prepare_for_device", "forward"):
                setattr(module, name, _marking(getattr(module, name), listener, layer, number))
        return load(self, *args, **kwargs)

    def marked_prefill(self: Passes, sequence: int, start: int, end: int) -> None:
        listener.enter(end - start, end)
        prefill(self, sequence, start, end)

    def marked_decode(self: Passes, start: int) -> Any:
        listener.enter(1, table_tokens(start))
        return decode(self, start)

    with (
        mock.patch.object(Model, "load", marked_load),
        mock.patch.object(Passes, "prefill", marked_prefill),
        mock.patch.object(Passes, "decode", marked_decode),
    ):
        yield


def _marking(method: Callable[..., Any], listener: Listener, layer: int, number: int) -> Callable[..., Any]:
    def marked(*args: Any, **kwargs: Any) -> Any:
        listener.layer, listener.module = layer, number
        return method(*args, **kwargs)

    return marked
