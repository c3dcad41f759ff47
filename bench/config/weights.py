"""The bits of a model's weights: those that they have, or those that are asked for."""

from __future__ import annotations

from bench.core.case import UNQUANTISED_BPW, ModelSpec
from bench.core.errors import BadInput
from bench.engines.base import EngineSpec


def bits_of(model: ModelSpec, asked: float, engine: EngineSpec) -> float:
    """Bits per weight: a checkpoint's own, else what is asked for. Raises `BadInput`."""
    if model.bpw is not None:
        return model.bpw
    if not engine.least_bpw <= asked <= engine.most_bpw and asked != UNQUANTISED_BPW:
        raise BadInput(
            f"bpw={asked:g}: {engine.weights.quantised} weights have {engine.least_bpw} to {engine.most_bpw} bits; "
            "16 is unquantised"
        )
    return asked


def head_bits_of(model: ModelSpec, bpw: float, asked: int) -> int | None:
    """A checkpoint has its own head, and an unquantised model has no head bits."""
    return None if model.has_weights or bpw == UNQUANTISED_BPW else asked
