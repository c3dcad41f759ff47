"""What a meta kernel has answered once is answered again without it, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.worker.simulated.output_shapes import OutputShapes

aten = torch.ops.aten


class Counted:
    """An operator that counts how often it is really run."""

    def __init__(self, func: Any) -> None:
        self.func, self.calls = func, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.func(*args, **kwargs)


def meta(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def told(tensor: torch.Tensor) -> Any:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device.type, tensor.untyped_storage().nbytes()


@pytest.mark.parametrize(
    ("func", "args", "kwargs"),
    [
        (aten.gelu.default, (meta(3, 5),), {"approximate": "tanh"}),
        (aten.mm.default, (meta(3, 5), meta(7, 5).t()), {}),
        (aten.add.Tensor, (meta(4, 6).t(), 1), {}),
        (aten.sum.dim_IntList, (meta(3, 5), [1]), {"dtype": torch.float32}),
        (aten.sort.default, (meta(3, 5),), {}),
    ],
    ids=["gelu", "matrices", "strides that are kept", "a type that is given", "several outputs"],
)
def test_the_answer_is_the_same_and_a_new_one(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    counted, shapes = Counted(func), OutputShapes()
    first, second, third = (shapes.of(counted, args, kwargs) for _ in range(3))
    assert counted.calls == 1
    each = [out if isinstance(out, tuple) else (out,) for out in (first, second, third, func(*args, **kwargs))]
    assert len({str([told(tensor) for tensor in out]) for out in each}) == 1
    assert second is not third  # the engine may resize one of them


def test_inputs_that_are_equal_to_python_are_not_to_an_operator() -> None:
    counted, shapes = Counted(aten.mul.Tensor), OutputShapes()
    numbers = meta(2, dtype=torch.int64)
    types = [shapes.of(counted, (numbers, value), {}).dtype for value in (1, 1.0, True)]
    assert types == [torch.int64, torch.get_default_dtype(), torch.int64]
    assert counted.calls == 3
    shapes.of(counted, (meta(2, dtype=torch.int32), 1), {})
    shapes.of(counted, (meta(4, dtype=torch.int64)[::2], 1), {})
    assert counted.calls == 5


def test_the_type_that_is_meant_where_none_is_named_counts() -> None:
    counted, shapes = Counted(aten.zeros.default), OutputShapes()
    types = []
    before = torch.get_default_dtype()
    for dtype in (torch.float32, torch.float16):
        torch.set_default_dtype(dtype)
        types.append(shapes.of(counted, ([2],), {"device": torch.device("meta")}).dtype)
    torch.set_default_dtype(before)
    assert types == [torch.float32, torch.float16]


def test_what_more_than_shapes_may_decide_is_run_each_time() -> None:
    """Tensors on the host have values, and a part of a tensor has the storage of the whole."""
    host, part = Counted(aten.mul.Tensor), Counted(aten.slice.Tensor)
    shapes = OutputShapes()
    for _ in range(3):
        shapes.of(host, (meta(2), torch.tensor(2.0)), {})
        assert shapes.of(part, (meta(8, 8), 0, 0, 2), {}).untyped_storage().nbytes() == 128
    assert (host.calls, part.calls) == (3, 3)
