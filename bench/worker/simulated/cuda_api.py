"""Stand-ins for what an engine calls of `torch.cuda`, and the hooks that let a process without a GPU name `cuda:0`.

Wherever a device is asked for it may be a number, a name, a `torch.device`, or None for the current one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from bench.worker.simulated.card import SimulatedCard
from bench.worker.simulated.tensor import SimulatedCuda, SimulatedTensor

_DEVICE_TYPE_CUDA, _DEVICE_TYPE_META = 1, 14  # c10/core/DeviceType.h


class _DeviceType(type):
    """Lets `isinstance(x, torch.device)` go on working while `torch.device` is replaced."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _real_device)


_real_device = torch.device


class Device(metaclass=_DeviceType):
    """`torch.device`, of which a build without an accelerator refuses a bare index."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A bare index is a CUDA device."""
        if len(args) == 1 and isinstance(args[0], int):
            args = ("cuda", args[0])
        return _real_device(*args, **kwargs)


_real_tensor = torch.tensor


def tensor(data: Any, **kwargs: Any) -> torch.Tensor:
    """`torch.tensor`, which reads the scalars in a list from inside C++, where no dispatch mode sees it."""
    if isinstance(data, list):
        data = [item.item() if isinstance(item, SimulatedTensor) else item for item in data]
    return _real_tensor(data, **kwargs)


def _numbered(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A factory whose `device` may be a bare number, which a build without an accelerator refuses there too."""

    def made(*args: Any, **kwargs: Any) -> torch.Tensor:
        if type(device := kwargs.get("device")) is int:
            kwargs["device"] = _real_device("cuda", device)
        return make(*args, **kwargs)

    return made


_FACTORIES = ("empty", "empty_like", "zeros", "ones", "full", "arange", "as_tensor")  # that engines call so


def allow_cuda_devices() -> None:
    """Gives CUDA the device guard of the meta device: a CPU build has none, and indexing fails.

    A CUDA build's own asks the driver, which has no device for a simulated card: on a GPU machine, too, it is hidden.
    """
    library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libc10.so"))
    guards = (ctypes.c_void_p * 32).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    guards[_DEVICE_TYPE_CUDA] = guards[_DEVICE_TYPE_META]


class Stream:
    """A CUDA stream: the allocator keeps the blocks of each apart. 0 is the default stream."""

    def __init__(self, card: SimulatedCard, number: int) -> None:
        self.device = card.device
        self.stream_id = self.cuda_stream = number

    def synchronize(self) -> None:
        """A simulated card is never behind."""

    wait_stream = wait_event = lambda self, other: None


@contextmanager
def patched(cuda: SimulatedCuda) -> Iterator[None]:
    """While it lasts, `torch.cuda` answers for the simulated cards."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(data, device="cuda"): made on the CPU, then moved
    with ExitStack() as stack:
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        for name, answer in {**_of_process(cuda), **_of_devices(cuda)}.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch, "device", Device))
        stack.enter_context(mock.patch.object(torch, "tensor", tensor))
        for name in _FACTORIES:
            stack.enter_context(mock.patch.object(torch, name, _numbered(getattr(torch, name))))
        yield


def _card(cuda: SimulatedCuda, device: Any) -> SimulatedCard:
    if device is None:
        return cuda.cards[cuda.current]
    return cuda.cards[device] if isinstance(device, int) else cuda.card_named(_real_device(device))


def _of_process(cuda: SimulatedCuda) -> dict[str, Any]:
    """What depends on which device and which streams are current, or changes that."""

    def set_device(device: Any) -> None:
        cuda.current = _card(cuda, device).index

    @contextmanager
    def on_device(device: Any) -> Iterator[None]:
        before = cuda.current
        set_device(device)
        try:
            yield
        finally:
            cuda.current = before

    def set_stream(stream: Stream) -> None:
        cuda.current = stream.device.index
        cuda.cards[cuda.current].stream = stream.stream_id

    @contextmanager
    def on_stream(stream: Stream | None) -> Iterator[None]:
        if stream is None:
            yield
            return
        # torch.cuda.StreamContext: that of the device before, and that of the stream's device
        here, there = cuda.cards[cuda.current], cuda.cards[stream.device.index]
        before = here.stream, there.stream
        set_stream(stream)
        try:
            yield
        finally:
            there.stream, here.stream = before[1], before[0]
            cuda.current = here.index

    def new_stream(device: Any = None, priority: int = 0) -> Stream:
        card = _card(cuda, device)
        return Stream(card, card.new_stream())

    def empty_cache() -> None:
        for card in cuda.cards:
            card.allocator.empty_cache()

    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: len(cuda.cards),
        "current_device": lambda: cuda.current,
        "set_device": set_device,
        "device": on_device,
        "Stream": new_stream,
        "set_stream": set_stream,
        "stream": on_stream,
        "synchronize": lambda device=None: None,
        "init": lambda: None,
        "is_current_stream_capturing": lambda: False,
        "current_stream": lambda device=None: Stream(card := _card(cuda, device), card.stream),
        "empty_cache": empty_cache,
    }


def _of_devices(cuda: SimulatedCuda) -> dict[str, Any]:
    """What is asked of one device."""

    def capability(device: Any = None) -> tuple[int, int]:
        properties = _card(cuda, device).properties
        return properties.major, properties.minor

    def memory_stats(device: Any = None) -> dict[str, int]:
        stats = _card(cuda, device).allocator.stats
        return {
            **{f"{kind}_bytes.all.current": getattr(stats, f"{kind}_bytes") for kind in _KINDS},
            **{f"{kind}_bytes.all.peak": getattr(stats, f"peak_{kind}_bytes") for kind in _KINDS},
            "num_alloc_retries": stats.num_alloc_retries,
            "num_ooms": stats.num_ooms,
        }

    return {
        "get_device_properties": lambda device=None: _card(cuda, device).properties,
        "get_device_capability": capability,
        "get_device_name": lambda device=None: _card(cuda, device).spec.full_name,
        "mem_get_info": lambda device=None: _card(cuda, device).mem_get_info(),
        "memory_stats": memory_stats,
        "memory_allocated": lambda device=None: _card(cuda, device).allocator.stats.allocated_bytes,
        "memory_reserved": lambda device=None: _card(cuda, device).allocator.stats.reserved_bytes,
        "max_memory_allocated": lambda device=None: _card(cuda, device).allocator.stats.peak_allocated_bytes,
        "max_memory_reserved": lambda device=None: _card(cuda, device).allocator.stats.peak_reserved_bytes,
        "reset_peak_memory_stats": lambda device=None: _card(cuda, device).reset_peak(),
        "set_per_process_memory_fraction": lambda fraction, device=None: _card(cuda, device).set_fraction(fraction),
    }


_KINDS = ("allocated", "requested", "reserved")
