"""Stand-ins for what an engine calls of `torch.cuda`, and the hooks that let a process without a GPU name `cuda:0`."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from bench.worker.simulated.tensor import DEVICE, SimulatedCuda, SimulatedTensor

_DEVICE_TYPE_CUDA, _DEVICE_TYPE_META = 1, 14  # c10/core/DeviceType.h


class Stream:
    """A CUDA stream: the allocator keeps the blocks of each apart. 0 is the default stream."""

    _created = 0

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        Stream._created += 1
        self.device = DEVICE
        self.stream_id = Stream._created


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


def allow_cuda_devices() -> None:
    """Gives CUDA the device guard of the meta device: a CPU build has none, and indexing fails.

    A CUDA build's own asks the driver, which has no device for a simulated card: on a GPU machine, too, it is hidden.
    """
    library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libc10.so"))
    guards = (ctypes.c_void_p * 32).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    guards[_DEVICE_TYPE_CUDA] = guards[_DEVICE_TYPE_META]


@contextmanager
def patched(
    cuda: SimulatedCuda,
    properties: SimpleNamespace,
    mem_get_info: Callable[[], tuple[int, int]],
) -> Iterator[None]:
    """While it lasts, `torch.cuda` answers for the simulated card. `properties` is a torch device's properties."""

    def set_stream(stream: Stream) -> None:
        cuda.stream = stream.stream_id

    @contextmanager
    def on_stream(stream: Stream | None) -> Iterator[None]:
        before = cuda.stream
        if stream is not None:
            cuda.stream = stream.stream_id
        try:
            yield
        finally:
            cuda.stream = before

    @contextmanager
    def on_device(device: Any) -> Iterator[None]:
        yield

    answers: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "device": on_device,
        "get_device_properties": lambda device=None: properties,
        "get_device_capability": lambda device=None: (properties.major, properties.minor),
        "get_device_name": lambda device=None: properties.name,
        "Stream": Stream,
        "set_stream": set_stream,
        "stream": on_stream,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: cuda.allocator.empty_cache(),
        "mem_get_info": lambda device=None: mem_get_info(),
    }
    Stream._created = 0
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(data, device="cuda"): made on the CPU, then moved
    with ExitStack() as stack:
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch, "device", Device))
        stack.enter_context(mock.patch.object(torch, "tensor", tensor))
        yield
