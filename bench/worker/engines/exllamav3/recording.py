"""What a recorder must know of exllamav3: how a case is made shallow, and where its passes and layers begin."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from bench.allocator.limits import case_limits
from bench.core.case import DEFAULT_SCENARIO, MAX_SEQ_LEN, PAGE, Case
from bench.engines.exllamav3.refusals import is_latent
from bench.engines.exllamav3.served import LAST_TOKEN
from bench.engines.exllamav3.setup import FIRST, LATER, Setup, asked_by, is_unpacked
from bench.engines.exllamav3.tables import table_tokens
from bench.engines.reading import find_number
from bench.scenarios.forward import PROMPT_TOKENS
from bench.trace.passes import NoPrediction, Pass
from bench.worker.engines.base import Listener, Recordable
from bench.worker.engines.exllamav3.choices import read_back
from bench.worker.engines.exllamav3.generator import Passes
from bench.worker.engines.exllamav3.packages import (
    forget_experts,
    forget_packed_latents,
    forget_tables,
    has_packed_latents,
    has_tables_of_experts,
)
from bench.worker.engines.exllamav3.readable import read_model
from bench.worker.engines.exllamav3.session import ExLlamaV3Session
from bench.worker.engines.exllamav3.shallow import shallow
from bench.worker.interfaces.card import Machine

_MARGIN_BYTES = 256 << 20  # model_ls.py, EXL3_AUTOSPLIT_MARGIN_MB
_LEAST_TILE, _TILE_VALUES, _MOST_SHARES = 16, 8192, 128  # util/backend.py, attn_decode_config; triton_paged.py


def recordable(case: Case, machine: Machine) -> Recordable:
    """How `case` is recorded. Raises `Unsupported`, and `NoPrediction`."""
    model = read_model(case.model.config)
    reading = read_back(model)
    native = find_number(case.model.config, "max_position_embeddings")
    setup = Setup(
        attention=reading.attention,
        max_input_len=case.max_input_len,
        batch_size=case.batch_size,
        longest=min(max(int(native or 0), PAGE), MAX_SEQ_LEN),
        quantised_cache=is_unpacked(case),
        **asked_by(case),
        makes_tables=reading.experts > 1 or (is_latent(case.model.config) and case.cache != "FP16"),
        tried_tokens=case.max_input_len if case.lazy else 0,
        ring_tokens=_ring_tokens(model),
        has_states=bool(model.caps.get("recurrent_states")),
        shared_tokens=max((_shared_tokens(module, case) for module in model), default=0),
    )
    _require_compared(case, setup)
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


def _require_compared(case: Case, setup: Setup) -> None:
    """Raises `NoPrediction` for what together has not been compared with runs, or was not as predicted."""
    is_served = case.scenario != DEFAULT_SCENARIO
    for what, is_so in (
        # Of more than two the sections differ in more than their sizes; those of rings were once 1 KiB off.
        ("several sequences of layers with states or rings", case.batch_size > 1 and setup.has_states),
        ("jobs of layers with states or rings", is_served and setup.has_states),
    ):
        if is_so:
            raise NoPrediction(f"exllamav3: no prediction for {what}: a sweep finds how far it goes, by runs")


def _ring_tokens(model: Any) -> int:
    """What a ring holds of a sequence in each layer that has one. Raises `NoPrediction` where they differ."""
    sizes = {int(module.kv_state_size) for module in model if hasattr(module, "kv_state_size")}
    if len(sizes) > 1:
        raise NoPrediction("exllamav3: layers with rings of several sizes are not predicted, but found by runs")
    return max(sizes, default=0)


@contextmanager
def marked(listener: Listener) -> Iterator[None]:
    """While it lasts, models, passes and layers tell `listener` that they begin."""
    from exllamav3 import Generator, Model

    load, prefill, decode = Model.load, Passes.prefill, Passes.decode
    served_prefill, stage = Model.prefill, Generator._stage_arena
    is_own = False  # whether it is not the generator that has a chunk worked off
    forward = ExLlamaV3Session.forward
    are_experts_made: bool | None = None  # before the first prompt of any length
    are_latents_packed = False  # by then, in whole chunks

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
        nonlocal is_own
        listener.enter(end - start, end)
        is_own = True
        prefill(self, sequence, start, end)
        is_own = False

    def marked_served_prefill(self: Any, input_ids: Any, params: Any = None) -> Any:
        tokens = input_ids.shape[-1]
        if not is_own:
            if tokens > PROMPT_TOKENS - LAST_TOKEN:
                return None  # prompts of any length are recorded by their chunks, among the extra passes
            listener.enter(tokens, int(params["cache_seqlens"][0]) + tokens)
        return served_prefill(self, input_ids, params)

    def marked_stage(self: Any, rows: int, width: int, with_positions: bool) -> Any:
        listener.enter(1 + self.num_draft_tokens, width * PAGE)
        return stage(self, rows, width, with_positions)

    def marked_forward(self: ExLlamaV3Session, each: Pass) -> None:
        nonlocal are_experts_made, are_latents_packed
        if are_experts_made is None:  # by autosplit, or by more rows than decoding has kernels for
            are_experts_made = has_tables_of_experts(self.model)
            are_latents_packed = has_packed_latents(self.chunk_tokens)
        listener.pause()
        if each.q_len < self.chunk_tokens and not each.kind.endswith(LATER):
            forget_tables(each.q_len)  # a prompt has one of its length, which makes the tables of that
            forget_packed_latents(each.q_len)
        if each.kind.endswith(FIRST):
            if not are_experts_made:
                forget_experts(self.model)
            if each.q_len == self.chunk_tokens and not are_latents_packed:
                forget_packed_latents(each.q_len)
        forward(self, each)

    reached = 0  # by the tokens that were decoded

    def marked_decode(self: Passes, start: int) -> Any:
        nonlocal reached
        if start > reached > 0 and self.is_recurrent:  # a prompt of any length, which is recorded apart
            listener.pause()
            self.restart()
            self.place(start)
        reached = start + 1
        listener.enter(1, table_tokens(start))
        return decode(self, start)

    with (
        _told_of_autosplit(listener),
        mock.patch.object(Model, "load", marked_load),
        mock.patch.object(Passes, "prefill", marked_prefill),
        mock.patch.object(Passes, "decode", marked_decode),
        mock.patch.object(Model, "prefill", marked_served_prefill),
        mock.patch.object(Generator, "_stage_arena", marked_stage),
        mock.patch.object(ExLlamaV3Session, "forward", marked_forward),
    ):
        yield


@contextmanager
def _told_of_autosplit(listener: Listener) -> Iterator[None]:
    """While it lasts, `listener` hears what autosplit keeps free, measures and compares (model/model_ls.py)."""
    loader = importlib.import_module("exllamav3.model.model_ls")
    keep, free, lift = loader.set_memory_fraction_reserve, loader.device_mem_info, loader.unset_memory_fraction
    reset = torch.cuda.reset_peak_memory_stats

    def told_keep(reserve_bytes: int, device: int) -> int:
        budget: int = keep(reserve_bytes, device)
        listener.keeps_free(int(reserve_bytes))
        return budget

    def told_reset(device: Any = None) -> None:
        listener.tries()
        reset(device)

    def told_free(device: Any) -> Any:
        listener.requires(_MARGIN_BYTES)
        return free(device)

    def told_lift(devices: list[int]) -> None:
        listener.keeps_free(0)
        lift(devices)

    with (
        mock.patch.object(loader, "set_memory_fraction_reserve", told_keep),
        mock.patch.object(loader, "device_mem_info", told_free),
        mock.patch.object(loader, "unset_memory_fraction", told_lift),
        mock.patch.object(torch.cuda, "reset_peak_memory_stats", told_reset),
    ):
        yield


def _marking(method: Callable[..., Any], listener: Listener, layer: int, number: int) -> Callable[..., Any]:
    def marked(*args: Any, **kwargs: Any) -> Any:
        listener.layer, listener.module = layer, number
        return method(*args, **kwargs)

    return marked
