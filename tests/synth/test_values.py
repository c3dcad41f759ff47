"""What random tensors hold: read back by the kernels' rules, they are weights like trained ones."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.synth.layout import Content, Tensor
from bench.synth.values import Values, quant_counts
from tests.synth.exl2 import dequantise

_DTYPES = {"I32": np.int32, "I16": np.int16, "F16": np.float16}
VALUES, AGAIN = Values(seed=3), Values(seed=3)


def filled(tensor: Tensor, values: Values = VALUES) -> npt.NDArray[Any]:
    data = b"".join(values.chunks(tensor))
    return np.frombuffer(data, _DTYPES[tensor.dtype]).reshape(tensor.shape)


def layer(rows: int, columns: int, groups: tuple[int, ...], packed_rows: int) -> dict[str, npt.NDArray[Any]]:
    count = len(groups) // 2
    deviation = 1 / math.sqrt(rows)
    tensors = [
        Tensor("layer.q_weight", "I32", (packed_rows, columns), Content.QUANTS, groups),
        Tensor("layer.q_invperm", "I32", (rows,), Content.PERMUTATION),
        Tensor("layer.q_scale", "I32", (count, columns // 8), Content.SCALES),
        Tensor("layer.q_scale_max", "F16", (count,), Content.LARGEST_SCALES, groups, deviation),
        Tensor("layer.q_groups", "I16", (2 * count,), Content.GROUPS, groups),
    ]
    return {tensor.name: filled(tensor) for tensor in tensors}


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_weights_of_each_width_have_the_deviation_and_no_mean(bits: int) -> None:
    groups = tuple(itertools.chain.from_iterable((bits, 4 * bits * group) for group in range(4)))
    weights = dequantise(layer(512, 1024, groups, 16 * bits), "layer")
    assert np.isfinite(weights).all()
    assert weights.std() * math.sqrt(512) == pytest.approx(1, abs=0.03)
    # Neither the whole nor a single output leans to a side: half a level would be 10 to 40 of these deviations.
    assert abs(weights.mean()) < 5 * weights.std() / math.sqrt(weights.size)
    assert np.abs(weights.mean(axis=0)).max() < 6 * weights.std() / math.sqrt(512)
    assert len(np.unique(np.round(weights / weights.std(), 4))) > 8


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_quants_are_even_around_the_zero_level(bits: int) -> None:
    counts = quant_counts(bits)
    assert sum(counts) == 1 << 16
    assert counts[0] == 0
    assert counts[1:] == counts[:0:-1]
    assert max(counts) == counts[1 << (bits - 1)]


def test_a_layer_of_several_widths_is_packed_where_its_table_says() -> None:
    # 64 rows of 6 bits, 128 of 3, 48 of 2: the last group is shorter and ends within a unit.
    groups = (6, 0, 3, 12, 2, 24)
    tensors = layer(240, 64, groups, 27)
    assert (np.sort(tensors["layer.q_invperm"]) == np.arange(240)).all()
    weights = dequantise(tensors, "layer")[np.argsort(tensors["layer.q_invperm"], kind="stable")]
    for rows, levels in ((slice(0, 64), 64), (slice(64, 192), 8), (slice(192, 240), 4)):
        assert weights[rows].std() * math.sqrt(240) == pytest.approx(1, abs=0.06)
        column = weights[rows, 0]
        assert len(np.unique(column)) <= levels


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_every_tensor_has_its_size_and_the_same_bytes_again(rows: int, columns: int) -> None:
    for tensor in (
        Tensor("a", "I32", (2 * rows, 8 * columns), Content.QUANTS, (2, 0)),
        Tensor("b", "I32", (rows, columns), Content.SCALES),
        Tensor("c", "I32", (rows,), Content.PERMUTATION),
    ):
        data = b"".join(VALUES.chunks(tensor))
        assert len(data) == tensor.size_bytes
        assert data == b"".join(AGAIN.chunks(tensor))


def test_a_seed_decides_and_tensors_differ() -> None:
    one, other = (Tensor(name, "I32", (64, 256), Content.QUANTS, (4, 0)) for name in ("one", "other"))
    assert (filled(one) == filled(one, Values(3))).all()
    assert (filled(one) != filled(one, Values(4))).mean() > 0.9
    assert (filled(one) != filled(other)).mean() > 0.9


def test_a_tensor_larger_than_all_blocks_repeats_none_of_its_rows() -> None:
    """An output layer of a large vocabulary: 48 MiB, from a block of 8."""
    rows = filled(Tensor("head", "I32", (48, 1 << 18), Content.QUANTS, (4, 0)))
    assert len({row.tobytes() for row in rows}) == 48
    wide = filled(Tensor("wide", "I32", (4, 3 << 18), Content.QUANTS, (4, 0)))  # wider than the block
    assert wide.shape == (4, 3 << 18)
    assert len(np.unique(wide)) > 1 << 18


def test_fp16_tensors_are_normal() -> None:
    values = filled(Tensor("embedding", "F16", (3000, 4000), Content.NORMAL, deviation=0.02)).astype(np.float32)
    assert values.std() == pytest.approx(0.02, rel=0.01)
    assert abs(values.mean()) < 1e-4
    assert 0.07 < np.abs(values).max() < 0.1
    assert (filled(Tensor("norm", "F16", (8,), Content.ONES)) == 1).all()
    assert (filled(Tensor("norm", "F16", (8,), Content.ZEROS)) == 0).all()
