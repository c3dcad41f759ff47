"""How ExLlamaV2 is recorded on two cards: with the first module of the second one chosen, whatever their sizes."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from bench.core.case import Case
from bench.core.split import Split, SplitBy
from bench.trace.passes import NoPrediction
from bench.trace.recording import RESERVE_BYTES
from bench.worker.engines.base import Beginning
from bench.worker.engines.exllamav2.shallow import with_layers


def on_two_cards(case: Case, config: Any, num_layers: int, period: int) -> tuple[Case, tuple[Beginning, ...]]:
    """A shallow `case` of `num_layers` layers on two cards alike, and the beginnings of a card that are recorded.

    Raises `NoPrediction`.
    """
    split = Split.parse(case.split or SplitBy.AUTO)
    if period > 1:
        raise NoPrediction("its layers alternate, and a card may begin with a layer of any kind: that is not recorded")
    if split.by is SplitBy.AUTO:
        endless = Split(SplitBy.AUTO, reserve_bytes=(RESERVE_BYTES, RESERVE_BYTES))
    else:
        endless = Split(SplitBy.GPU_SPLIT, _ENDLESS_GIB)
    case = dataclasses.replace(
        case, more_devices=(case.device,), split=str(endless), vram_limit_bytes=None, vram_limits_bytes=None
    )

    def beginning(module: int, num_whole: int, after_all: bool = False) -> Beginning:
        """One layer is on the first card, and of the second if it begins with another module than the first."""
        depth = num_layers if case.model.has_weights else 1 + (module > 0 and not after_all) + num_whole
        first_layer = depth - num_whole
        layer = depth if after_all else first_layer - (module > 0)
        return Beginning(with_layers(case, depth), layer, module, first_layer, num_whole)

    modules = range(1 if config.arch.lm.parallel_decoder_blocks else 2)
    beginnings = [beginning(_HEAD, 0, after_all=True)]
    beginnings += [beginning(module, num_layers - 2 if case.model.has_weights else num_layers) for module in modules]
    if not case.model.has_weights:  # with them, as many layers follow as there are
        beginnings += [beginning(module, whole) for module in modules for whole in range(module == 0, 2)]
    return case, tuple(beginnings)


_HEAD = 1  # among the modules after all layers: the first is their norm
_ENDLESS_GIB = (99999.0, 1e9)  # the first is what the engine takes where nobody says; the second holds anything


def begin_a_card(module: Any) -> None:
    """Has `load_autosplit` go on to the next card when it comes to `module` on the first one, and `load` likewise."""
    load = module.load
    module.weight_footprint = lambda: int(2 * _ENDLESS_GIB[0]) << 30  # only what sets the device map asks for it

    def refused_by_the_first(*args: Any, **kwargs: Any) -> Any:
        if module.device_idx == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return load(*args, **kwargs)

    module.load = refused_by_the_first
