"""Operators whose CUDA kernels allocate more than their outputs, or whose results the host needs.

Each rule was found by holding the simulation against PyTorch's real allocator and operators on a CUDA runtime whose
kernels do nothing; the source named is the place in PyTorch that allocates. The order of allocations is the kernel's
own, because it decides which cached block serves which request.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.allocator import reduction, sort
from bench.allocator.limits import compute_capability
from bench.worker.simulated.card import SimulatedCard
from bench.worker.simulated.tensor import (
    SimulatedCuda,
    SimulatedTensor,
    UnknownValue,
    is_cuda_device,
    lazy_zeros,
)

aten = torch.ops.aten


def _is_plain(args: tuple[Any, ...]) -> bool:
    return not any(type(a) is SimulatedTensor for a in args)


def _run(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> tuple[SimulatedCard, Any]:
    """The card that an operator with an input on one runs on, and its outputs."""
    card = cuda.card_of(args, kwargs)
    assert card is not None
    return card, cuda.run_fresh(card, func, args, kwargs)


def _zeros(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    device = kwargs.get("device")
    if is_cuda_device(device):
        return cuda.run_fresh(cuda.card_named(device), func, args, kwargs)
    if device is not None and device.type != "cpu":
        return func(*args, **kwargs)
    return lazy_zeros(args[0], kwargs.get("dtype") or torch.get_default_dtype())


def _scalar(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    source = args[0]
    if type(source) is not SimulatedTensor:
        return func(*args, **kwargs)
    if source.numbers is None:
        raise UnknownValue("the host reads a value that a simulated card does not compute")
    return func(source.numbers)


def _sort(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    if _is_plain(args) and _is_plain(tuple(kwargs.values())):
        return func(*args, **kwargs)
    card, (values, indices) = _run(cuda, func, args, kwargs)
    # Sort.cu: a second tensor of indices, and for long rows CUB's own workspace.
    length = values.shape[-1] if values.dim() else 1
    second_indices = cuda.claim(card, values.numel() * 8)
    if length > sort.SHORT_ROW and values.dtype is torch.int64:
        tile = sort.tile_of_int64(compute_capability(card.spec))
        cuda.claim(card, sort.workspace_bytes_int64(length, tile))
    elif length > sort.SHORT_ROW:
        cuda.observer.sort(length)
        cuda.claim(card, sort.workspace_bytes(length, card.limits.sort_tile))
    del second_indices
    return values, indices


def _scalar_power(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    if _is_plain(args):
        return func(*args, **kwargs)
    card, out = _run(cuda, func, args, kwargs)
    cuda.claim(card, 8)  # Pow.cpp: the base becomes a tensor of one double on the card
    return out


def _softmax(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    if _is_plain(args):
        return func(*args, **kwargs)
    source = args[0]
    card, out = _run(cuda, func, args, kwargs)
    if not source.meta.is_contiguous():  # SoftMax.cu: host_softmax works on a contiguous copy
        cuda.claim(card, source.numel() * source.dtype.itemsize)
    return out


def _gemm(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    if _is_plain(args):
        return func(*args, **kwargs)
    card, out = _run(cuda, func, args, kwargs)
    card.use_cublas()
    return out


def _gemm_into(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    """The same into a tensor that is there, `out`."""
    out = cuda._run_in_place(func, args, kwargs)
    if type(out) is SimulatedTensor:
        out.card.use_cublas()
    return out


def _index(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    source, indices = args
    if type(source) is not SimulatedTensor:
        return func(*args, **kwargs)
    # IndexingUtils.h: indices on the host are copied to the card for the length of the call.
    moved = [
        cuda.claim(source.card, i.numel() * i.dtype.itemsize)
        for i in indices
        if i is not None and type(i) is not SimulatedTensor and i.dim() > 0
    ]
    out = cuda.run_fresh(source.card, func, args, kwargs)
    del moved
    return out


def _topk(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    """Of unknown scores: every entry is chosen equally often, as if a router were perfectly balanced (assumed)."""
    if _is_plain(args):
        return func(*args, **kwargs)
    scores, k = args[0], args[1]
    _, (values, indices) = _run(cuda, func, args, kwargs)
    if indices.numbers is None:
        choices = torch.arange(indices.numel()) % scores.shape[-1]
        indices.numbers = choices.view(indices.shape[0], k) if indices.dim() == 2 else choices.view(indices.shape)
    return values, indices


def _one_hot(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    source, num_classes = args[0], args[1]
    if type(source) is not SimulatedTensor:
        return func(*args, **kwargs)
    meta = torch.empty((*source.shape, num_classes), dtype=torch.int64, device="meta")
    return cuda.fresh(source.card, meta, None if source.numbers is None else func(source.numbers, num_classes))


def _nonzero(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    source = args[0]
    if type(source) is not SimulatedTensor:
        return func(*args, **kwargs)
    if source.numbers is None:
        raise UnknownValue("the shape depends on values that a simulated card does not compute")
    values = func(source.numbers)
    # The kernel writes one row per dimension and returns the transpose.
    meta = torch.empty(values.shape[::-1], dtype=torch.int64, device="meta").t()
    return cuda.fresh(source.card, meta, values)


def _where(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    if _is_plain(args):
        return func(*args, **kwargs)
    with cuda:
        return list(aten.nonzero.default(args[0]).unbind(1))


def _embedding(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    """The embeddings of a checkpoint without weights are zeros, on the host: nothing needs to be gathered."""
    weight, indices = args[0], args[1]
    if _is_plain(args):
        return lazy_zeros((*indices.shape, weight.shape[1]), weight.dtype)
    return cuda.run(func, args, kwargs)


def _bincount(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    source = args[0]
    if type(source) is not SimulatedTensor:
        return func(*args, **kwargs)
    if source.numbers is None:
        raise UnknownValue("the shape depends on values that a simulated card does not compute")
    counts = func(source.numbers, *args[1:], **kwargs)
    # SummaryOps.cu: the least and the largest value, read one after the other before the counts are made
    bounds = [cuda.claim(source.card, source.dtype.itemsize) for _ in range(2)]
    out = cuda.fresh(source.card, torch.empty_like(counts, device="meta"), counts)
    del bounds
    return out


def _all(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    """Whether all are true. Of numbers that nobody computed they are: engines ask it where something would be wrong."""
    if _is_plain(args):
        return func(*args, **kwargs)
    source = args[0]
    card, out = _run(cuda, func, args, kwargs)
    held = [cuda.claim(card, size_bytes) for size_bytes in reduction.workspace_bytes(source.numel(), 1)]
    del held
    if out.numbers is None:
        out.numbers = torch.ones((), dtype=out.dtype)
    return out


RULES: dict[Any, Any] = {
    aten.all.default: _all,
    aten.zeros.default: _zeros,
    aten._local_scalar_dense.default: _scalar,
    aten.sort.default: _sort,
    aten.sort.stable: _sort,
    aten.pow.Scalar: _scalar_power,
    aten._softmax.default: _softmax,
    aten.embedding.default: _embedding,
    aten.mm.default: _gemm,
    aten.bmm.default: _gemm,
    aten.addmm.default: _gemm,
    aten.mm.out: _gemm_into,
    aten.bmm.out: _gemm_into,
    aten.addmm.out: _gemm_into,
    aten.index.Tensor: _index,
    aten.topk.default: _topk,
    aten.bincount.default: _bincount,
    aten.one_hot.default: _one_hot,
    aten.nonzero.default: _nonzero,
    aten.where.default: _where,
}
