"""What a recorder must know of ExLlamaV2: how a case is made shallow, and where its passes and layers begin."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from bench.core.case import MAX_SEQ_LEN, PAGE, Case
from bench.engines.exllamav2.setup import Setup
from bench.trace.template import SHOWN_PERIODS
from bench.worker.engines.base import Listener, Recordable
from bench.worker.engines.exllamav2.choices import choose_attention, read_back
from bench.worker.engines.exllamav2.readable import read_config
from bench.worker.interfaces.card import Machine

_LAYER_KEYS = ("num_hidden_layers", "n_layers", "n_layer")  # ExLlamaV2Config.prepare


def recordable(case: Case, machine: Machine) -> Recordable:
    """How `case` is recorded on a machine like `machine`. Raises `Unsupported`."""
    config = read_config(case.model.config)
    setup = _setup(case, config, choose_attention(config, case.attention, machine))
    shallow, period = _shallow(case, config)
    return Recordable(
        case=shallow,
        num_layers=read_config(shallow.model.config).num_hidden_layers,
        period=period,
        depth=config.num_hidden_layers,
        setup=setup,
        reading=read_back(config, setup.attention),
    )


def _setup(case: Case, config: Any, attention: str) -> Setup:
    slides = config.arch.lm.swa or config.arch.lm.alternating_swa
    rope_limit = config.yarn_rope_original_max_position_embeddings if config.alt_rope_method == "yarn" else None
    return Setup(
        lazy=case.lazy,
        max_input_len=case.max_input_len,
        batch_size=case.batch_size,
        attention=attention,
        # Beyond the engine's default other tables may be made; what is recorded must show them.
        # A tokenizer's 10^30 for `no limit`, or 0, is no length.
        native_max_seq_len=min(max(config.max_seq_len, 2 * (rope_limit or 0), PAGE), MAX_SEQ_LEN),
        window=config.sliding_window or None if slides else None,
        rope_limit=rope_limit,
        num_experts=(config.num_experts if config.arch.lm.is_moe else None) or 1,
        experts_per_token=config.num_experts_per_token or 1,
        max_attention_size=case.max_attention_size,
        scenario=case.scenario,
    )


def _shallow(case: Case, config: Any) -> tuple[Case, int]:
    """The case with as few layers as show them all, and after how many they repeat."""
    period = 1
    if config.arch.lm.alternating_swa:  # ExLlamaV2.__init__
        period = config.sliding_window_pattern if config.sliding_window_pattern > 1 else 2
    shown = SHOWN_PERIODS * period
    fewest = shown + 1 + (config.num_hidden_layers - shown - 1) % period  # so that the last layer falls where it does
    if fewest >= config.num_hidden_layers or case.model.has_weights:
        return case, period
    model = dataclasses.replace(
        case.model,
        config=with_num_hidden_layers(case.model.config, fewest),
        fingerprint=f"{case.model.fingerprint}-{fewest}",
    )
    return dataclasses.replace(case, model=model), period


def with_num_hidden_layers(config: dict[str, Any], num_layers: int) -> dict[str, Any]:
    """A config.json (parsed) of a model that is so deep."""
    shallow: dict[str, Any] = {key: num_layers if key in _LAYER_KEYS else value for key, value in config.items()}
    text_config = shallow.get("text_config")
    if isinstance(text_config, dict):
        shallow["text_config"] = with_num_hidden_layers(text_config, num_layers)
    return shallow


@contextmanager
def marked(listener: Listener) -> Iterator[None]:
    """While it lasts, models, passes and layers tell `listener` that they begin."""
    from exllamav2.model import ExLlamaV2

    make, forward_chunk = ExLlamaV2.__init__, ExLlamaV2.forward_chunk

    def marked_make(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        listener.scratch(_scratch(self))
        layer = -1
        for module in self.modules:
            own = getattr(module, "layer_idx", None)
            layer = own if own is not None else (-1 if layer < 0 else self.config.num_hidden_layers)
            for name in ("set_device_idx", "load", "forward"):
                setattr(module, name, _marking(getattr(module, name), listener, layer))

    def marked_forward_chunk(self: Any, **kwargs: Any) -> Any:
        q_len = kwargs["input_ids"].shape[1]
        listener.enter(q_len, kwargs["cache"].current_seq_len + q_len)
        return forward_chunk(self, **kwargs)

    with (
        mock.patch.object(ExLlamaV2, "__init__", marked_make),
        mock.patch.object(ExLlamaV2, "forward_chunk", marked_forward_chunk),
    ):
        yield


def _scratch(model: Any) -> list[tuple[int, int]]:
    """What each module wants of scratch, as a line over max_input_len; those that others outdo are left out."""
    config, lines = model.config, set()
    asked = config.max_input_len
    for module in model.modules[1:]:  # the embeddings stay on the host
        config.max_input_len = 0
        fixed = module.scratch_space_fixed()
        config.max_input_len = 1
        lines.add((fixed, module.scratch_space_fixed() - fixed))
    config.max_input_len = asked
    return [line for line in lines if not any(a >= line[0] and b >= line[1] and (a, b) != line for a, b in lines)]


def _marking(method: Callable[..., Any], listener: Listener, layer: int) -> Callable[..., Any]:
    def marked(*args: Any, **kwargs: Any) -> Any:
        listener.layer = layer
        return method(*args, **kwargs)

    return marked
