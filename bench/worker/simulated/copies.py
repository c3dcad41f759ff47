"""What copies between the host and cards, and between two cards, allocate beside their targets.

Source of every rule: aten/src/ATen/native/cuda/Copy.cu (copy_requires_temporaries, copy_kernel_cuda) and
TensorConversions.cpp (_to_copy).
"""

from __future__ import annotations

from typing import Any

import torch

from bench.worker.simulated.card import Claim
from bench.worker.simulated.tensor import (
    MAX_ELEMENTS_WITH_VALUES,
    SimulatedCuda,
    SimulatedTensor,
    is_cuda_device,
    lazy_zeros,
)

aten = torch.ops.aten
_META = torch.device("meta")


def _to_copy(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    """`aten._to_copy`: to a card, from one to another or to the host, or a conversion where it is."""
    source, device = args[0], kwargs.get("device")
    non_blocking = kwargs.get("non_blocking", False)
    if type(source) is not SimulatedTensor:
        if not is_cuda_device(device):
            return _cast_on_host(func, args, kwargs, kwargs.get("dtype"))
        dtype = kwargs.get("dtype") or source.dtype
        values = source.to(dtype).clone() if source.numel() <= MAX_ELEMENTS_WITH_VALUES else None
        meta = torch.empty_like(source, device="meta", dtype=dtype)
        target = cuda.fresh(cuda.card_named(device), meta, values)
        if dtype != source.dtype and non_blocking:
            _through_temporaries(cuda, target, source, non_blocking)
        cuda.observer.moved(source, target)
        return target
    if device is None or is_cuda_device(device):
        card = source.card if device is None else cuda.card_named(device)
        if kwargs.get("dtype") in (None, source.dtype):
            cuda.observer.copying(source)
        target = cuda.run_fresh(card, func, args, kwargs)
        if card is not source.card:
            _through_temporaries(cuda, target, source, non_blocking)
        return target
    dtype = kwargs.get("dtype") or source.dtype
    host: torch.Tensor = lazy_zeros(source.shape, dtype) if source.numbers is None else source.numbers.to(dtype).clone()
    if dtype != source.dtype or not _dense(source):  # else they have the same strides
        _through_temporaries(cuda, host, source, non_blocking)
    return host


def _to_dtype(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    """`aten.to.dtype`, which arrives whole in inference mode."""
    if type(args[0]) is SimulatedTensor:
        return cuda.run_composite(func, args, kwargs)
    dtype = args[1] if len(args) > 1 else kwargs.get("dtype")
    return _cast_on_host(func, args, kwargs, dtype)


def _cast_on_host(func: Any, args: Any, kwargs: Any, dtype: torch.dtype | None) -> torch.Tensor:
    """Weights that stay there, or what was looked up in them, in another type: of many nobody reads the values."""
    source = args[0]
    is_cast = dtype is not None and dtype != source.dtype and dtype.is_floating_point and source.is_floating_point()
    if dtype is not None and is_cast and source.numel() > MAX_ELEMENTS_WITH_VALUES and source.is_contiguous():
        return lazy_zeros(source.shape, dtype)
    kept: torch.Tensor = func(*args, **kwargs)
    return kept


def _copy_(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    target, source = args[0], args[1]
    from_card, to_card = type(source) is SimulatedTensor, type(target) is SimulatedTensor
    if not from_card and not to_card:
        return func(*args, **kwargs)
    if not (from_card and to_card and source.card is target.card):
        _through_temporaries(cuda, target, source, args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if from_card and to_card:
        return cuda._run_in_place(func, args, kwargs)
    if to_card:
        if target.numbers is not None:
            target.numbers.copy_(source)
    elif source.numbers is not None:  # what nobody computed is not written over what nobody reads
        target.copy_(source.numbers)
    return target


def _through_temporaries(cuda: SimulatedCuda, target: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> None:
    """Takes and gives back what a copy needs that is no plain run of bytes: contiguous tensors on either side.

    Types are converted on the card where the host does not wait, else on the host; between two cards where it is read.
    """
    same_type, same_shape = source.dtype == target.dtype, source.shape == target.shape
    if same_type and same_shape and ((_plain(target) and _plain(source)) or _alike(target, source)):
        return
    from_card = type(source) is SimulatedTensor
    if cuda.peer_access and from_card and type(target) is SimulatedTensor:
        return
    there, here = target.numel() * target.dtype.itemsize, target.numel() * source.dtype.itemsize
    held: list[Claim | None] = []

    def hold(tensor: torch.Tensor, size_bytes: int) -> None:
        if type(tensor) is SimulatedTensor:
            held.append(cuda.claim(tensor.card, size_bytes))

    if from_card == non_blocking:  # converted on the side of the source
        if not _plain(target):
            hold(target, there)
        if not same_type:
            hold(source, source.numel() * target.dtype.itemsize)
        if not same_shape or (not _plain(source) and (same_type or _dense(source))):
            if type(source) is SimulatedTensor and same_type:
                cuda.observer.copying(source)
            hold(source, there)
    else:
        if not (_plain(target) and same_type):
            hold(target, here)
        if not (_plain(source) and same_shape):
            hold(source, here)


def _clone(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    if type(args[0]) is SimulatedTensor:
        cuda.observer.copying(args[0])
    return cuda.run(func, args, kwargs)


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.meta if type(tensor) is SimulatedTensor else tensor


def _plain(tensor: torch.Tensor) -> bool:
    return _meta(tensor).is_contiguous()


def _dense(tensor: torch.Tensor) -> bool:
    """Whether its elements lie in memory without gaps, in whatever order."""
    run = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != run:
            return False
        run *= size
    return True


def _alike(target: torch.Tensor, source: torch.Tensor) -> bool:
    """Whether the elements of both lie in memory without gaps, in the same order."""
    return target.stride() == source.stride() and _dense(source)


def _empty(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    """Pinned memory is the host's: pages that nobody writes cost nothing here."""
    device = kwargs.get("device")
    if is_cuda_device(device) and kwargs.get("memory_format") is None:
        return cuda.fresh(cuda.card_named(device), func(args[0], dtype=kwargs.get("dtype"), device=_META))
    if kwargs.get("pin_memory") and not is_cuda_device(device):
        return lazy_zeros(args[0], kwargs.get("dtype") or torch.get_default_dtype())
    return cuda.run(func, args, kwargs)


_OF_TYPE = {"dtype", "pin_memory"}  # what says nothing of a layout or a card


def _empty_like(cuda: SimulatedCuda, func: Any, args: Any, kwargs: Any) -> Any:
    """The same; and of a contiguous tensor without PyTorch's own way, which is long."""
    source = args[0]
    if type(source) is SimulatedTensor and not kwargs.keys() - _OF_TYPE and source.meta.is_contiguous():
        dtype = kwargs.get("dtype") or source.meta.dtype
        return cuda.fresh(source.card, torch.empty(source.meta.shape, dtype=dtype, device=_META))
    if kwargs.get("pin_memory") and cuda.card_of(args, kwargs) is None:
        return lazy_zeros(args[0].shape, kwargs.get("dtype") or args[0].dtype)
    return cuda.run(func, args, kwargs)


RULES: dict[Any, Any] = {
    aten._to_copy.default: _to_copy,
    aten.to.dtype: _to_dtype,
    aten.copy_.default: _copy_,
    aten.clone.default: _clone,
    aten.empty.memory_format: _empty,
    aten.empty_like.default: _empty_like,
}
