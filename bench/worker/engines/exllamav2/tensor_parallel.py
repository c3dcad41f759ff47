"""What ExLlamaV2's tensor parallelism leaves to its caller, and what it cannot do: as it loads, and as it runs."""

from __future__ import annotations

from typing import Any

import torch

from bench.core.case import UNQUANTISED_BPW, Case
from bench.engines.reading import Reading
from bench.worker.interfaces.engine import Unsupported

_MIB, _MIB_IN_GIB = 1 << 20, 1024


def require_tensor_parallel(case: Case, config: Any, reading: Reading) -> None:
    """Raises `Unsupported` where it would end amid loading or in the first pass, or compute something else.

    `config` is an ExLlamaV2Config, and `reading` what it says of the model.
    """
    if reason := _what_stands_against_it(case, config, reading):
        raise Unsupported(f"ExLlamaV2 cannot run {config.architecture} with tensor parallelism: {reason}")


def _what_stands_against_it(case: Case, config: Any, reading: Reading) -> str | None:
    if not config.arch.lm.supports_tp:
        return "it has none for this architecture"
    if reading.experts > 1:
        return "it cannot divide experts"  # ExLlamaV2MoEMLP has no scratch_space_tp
    if reading.attention != "flash":
        return f"it needs flash-attn, and attention is {reading.attention} here"
    if case.bpw == UNQUANTISED_BPW or case.head_bits is None:
        return "it divides quantised layers only, the head among them"
    if any(reading.windows):
        return "it has no sliding window"
    if config.intermediate_size % 128:
        return f"intermediate_size is {config.intermediate_size}, and it needs a multiple of 128"
    width = config.num_attention_heads * config.head_dim
    if width != config.hidden_size:  # ExLlamaV2Attention.tp_split: its buffers have the width of the queries
        return f"its buffers are {width} wide, and hidden_size is {config.hidden_size}"
    return None


def require_same_cards(divided: Any) -> None:
    """Raises `Unsupported` where the first pass would end in a segmentation fault. `divided` is the model's TPContext.

    ExLlamaV2MLP.tp_split makes the buffers of a layer's input for the cards of its output (rs_split); tp_mlp_forward_
    writes one for each card that has columns of the layer (id_split). The two have other least sizes.
    """
    layer, output = divided.id_split_devs, divided.rs_split_devs
    if layer != output:
        text = " and its output among ".join(", ".join(map(str, cards)) for cards in (layer, output))
        unequal = sorted(set(layer) ^ set(output))
        raise Unsupported(f"ExLlamaV2 divides an MLP among cards {text}: give card {unequal[0]} more, or 0 (gpu_split)")


def free_gib() -> list[float]:
    """The gpu_split that the engine makes where none is given: what each card has free, in whole MiB.

    It would ask nvidia-smi, which knows no simulated card and cannot be asked where cards are named by their UUIDs.
    """
    free = (torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
    return [size // _MIB / _MIB_IN_GIB for size in free]
