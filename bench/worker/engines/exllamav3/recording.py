"""What a recorder must know of exllamav3: how a case is made shallow, and where its passes and layers begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from bench.allocator.limits import case_limits
from bench.core.case import MAX_SEQ_LEN, PAGE, Case
from bench.engines.exllamav3.setup import Setup, table_tokens
from bench.engines.reading import find_number
from bench.trace.passes import NoPrediction
from bench.worker.engines.base import Listener, Recordable
from bench.worker.engines.exllamav3.choices import read_back
from bench.worker.engines.exllamav3.generator import Passes
from bench.worker.engines.exllamav3.packages import forget_tables
from bench.worker.engines.exllamav3.readable import read_model
from bench.worker.engines.exllamav3.session import ExLlamaV3Session
from bench.worker.engines.exllamav3.shallow import shallow
from bench.worker.interfaces.card import Machine

_LEAST_TILE, _TILE_VALUES, _MOST_SHARES = 16, 8192, 128  # util/backend.py, attn_decode_config; triton_paged.py


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
        has_experts=reading.experts > 1,
        shared_tokens=max((_shared_tokens(module, case) for module in model), default=0),
    )
    fewer, num_layers, period = shallow(case, model)
    depth = sum(module.layer_idx is not None for module in model.modules)
    return Recordable(fewer, num_layers, period, depth, setup, reading, apart=True)


def _shared_tokens(module: Any, case: Case) -> int:
    """From how many tokens on a layer that decodes outside of graphs shares its keys out among all blocks.

    After paged_attn_triton_decode (exllamav3/modules/attention_fn/triton_paged.py); which layers do, after
    _module_eligible (bc_attn.py). Of those that are not known here the recordings show no rule.
    """
    norm = getattr(module, "q_norm", None)
    if norm is None or not hasattr(module, "num_kv_heads"):
        return 0
    if module.rope_settings is not None and not norm.span_heads:
        return 0  # the norm is part of the kernel of RoPE
    tile = max(_LEAST_TILE, _TILE_VALUES >> (module.head_dim - 1).bit_length())
    num_sms = case_limits(case.device, None, case).num_sms
    return int(min(2 * num_sms // module.num_kv_heads, _MOST_SHARES) * tile)


@contextmanager
def marked(listener: Listener) -> Iterator[None]:
    """While it lasts, models, passes and layers tell `listener` that they begin."""
    from exllamav3 import Model

    load, prefill, decode = Model.load, Passes.prefill, Passes.decode
    forward = ExLlamaV3Session.forward

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

    def marked_forward(self: ExLlamaV3Session, q_len: int, k_len: int) -> None:
        listener.pause()
        if q_len < self.chunk_tokens:  # a prompt has one of its length, which makes the tables of that
            forget_tables(q_len)
        if q_len == k_len:  # the first chunk of all makes the tables of all experts
            self.forget_experts()
        forward(self, q_len, k_len)

    def marked_decode(self: Passes, start: int) -> Any:
        listener.enter(1, table_tokens(start))
        return decode(self, start)

    with (
        mock.patch.object(Model, "load", marked_load),
        mock.patch.object(Passes, "prefill", marked_prefill),
        mock.patch.object(Passes, "decode", marked_decode),
        mock.patch.object(ExLlamaV3Session, "forward", marked_forward),
    ):
        yield


def _marking(method: Callable[..., Any], listener: Listener, layer: int, number: int) -> Callable[..., Any]:
    def marked(*args: Any, **kwargs: Any) -> Any:
        listener.layer, listener.module = layer, number
        return method(*args, **kwargs)

    return marked
