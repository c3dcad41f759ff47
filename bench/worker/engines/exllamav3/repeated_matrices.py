"""EXL3 matrices whose loading repeats: those of one kind are made from one that was loaded, with tensors of their own.

A model with 128 experts a layer loads 18,000 matrices of a few kinds. What loading one asks for beside its tensors, it
asks for once; the tensors are carved out of slabs by the engine's own code, since where they come to lie is decided by
all that was loaded before.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import torch

from bench.worker.simulated.repeats import can_note, noted_requests
from bench.worker.simulated.storage import Storage, dense_strides
from bench.worker.simulated.tensor import SimulatedCuda, SimulatedTensor

_TENSORS = ("suh", "svh", "trellis", "bias")  # in the order in which they are loaded (modules/linear.py, load_exl3)
_MARKERS = ("mcg", "mul1")
_PACKED = ("su", "sv")  # of older checkpoints: unpacked as they are loaded
_TYPES = {"F16": torch.half, "I16": torch.int16}


class _Tensor(NamedTuple):
    """One of a matrix's tensors, by a file's header."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    size_bytes: int


@dataclass(frozen=True)
class _Loaded:
    """A matrix of a kind that was loaded; `asks_nothing` if that took no memory beside its tensors.

    It is the engine's to keep: what did not fit is let go of.
    """

    inner: weakref.ref[Any]
    asks_nothing: bool


@contextmanager
def repeated_matrices(cuda: SimulatedCuda) -> Iterator[None]:
    """While it lasts, matrices are loaded by the kind that they are of."""
    linear = importlib.import_module("exllamav3.modules.linear").Linear
    safetensors = importlib.import_module("exllamav3.loader.safetensors")
    load = linear.load
    loaded: dict[Any, _Loaded] = {}

    def load_once(self: Any, device: Any, **kwargs: Any) -> None:
        collection, device = self.config.stc, torch.device(device)
        told = None
        if type(collection) is safetensors.SafetensorsCollection and device.type == "cuda" and _carves(collection):
            told = _told(self.key, collection)
        if told is None:
            load(self, device, **kwargs)
            return
        card = cuda.card_named(device)
        key = card.index, card.stream, self.in_features, self.out_features, self.out_dtype, told
        known = loaded.get(key)
        like = known.inner() if known is not None and known.asks_nothing else None
        if like is not None and can_note(card):
            _take(self, device, like, told.tensors)
            return
        with noted_requests(card) as requests:
            load(self, device, **kwargs)
        if requests is not None:
            sizes = [each.size_bytes for each in told.tensors if each is not None]
            own = [size for size in sizes if size > collection.ARENA_MAX_TENSOR]
            beside = [size for size in requests.sizes if size != collection.ARENA_BLOCK]
            loaded[key] = _Loaded(weakref.ref(self.inner), beside == own and not requests.frees)

    with (
        mock.patch.object(linear, "load", load_once),
        mock.patch.object(safetensors, "torch", _torch_with_quick_slices()),
    ):
        yield


def _carves(collection: Any) -> bool:
    """Whether tensors are cut out of slabs now."""
    return bool(
        collection.arena_enable
        and collection.deferred_mode
        and collection.deferred_arena
        and not collection.new_tensors
        and collection.load_method == "mt_fread"
    )


class _Told(NamedTuple):
    """What the headers tell of a matrix: its tensors in the order in which they are loaded, and whose codebook it has.

    The first matrix of a file shows whether the codebook is one that the engine knows.
    """

    tensors: tuple[_Tensor | None, ...]
    codebooks: tuple[str | None, ...]


def _told(key: str, collection: Any) -> _Told | None:
    """None for a matrix that is not in EXL3, or of an older kind."""
    files, headers = collection.tensor_file_map, collection.file_headers
    if f"{key}.trellis" not in files or any(f"{key}.{name}" in files for name in _PACKED):
        return None
    tensors: list[_Tensor | None] = []
    for name in _TENSORS:
        whole = f"{key}.{name}"
        if whole not in files:
            tensors.append(None)
            continue
        entry = headers[files[whole]][whole]
        dtype = _TYPES.get(entry["dtype"])
        if dtype is None:
            return None
        begin, end = entry["data_offsets"]
        tensors.append(_Tensor(tuple(entry["shape"]), dtype, end - begin))
    return _Told(tuple(tensors), tuple(files.get(f"{key}.{name}") for name in _MARKERS))


def _take(linear: Any, device: torch.device, like: Any, told: tuple[_Tensor | None, ...]) -> None:
    """Leaves a matrix as Linear.load does, with tensors of its own."""
    collection = linear.config.stc
    tensors: dict[str, Any] = {}
    for name, each in zip(_TENSORS, told, strict=True):
        if each is not None:
            tensors[name] = collection._arena_alloc(each.shape, each.dtype, device, zeros=False)
            collection.deferred_keep.append(tensors[name])  # until the file is read into it
    inner = object.__new__(type(like))
    vars(inner).update(vars(like), key=linear.key, bc=like.bc.like(**tensors), **tensors)
    linear.device, linear.inner, linear.quant_type, linear.used_alt_key = device, inner, like.quant_type, False


class _Nowhere:
    """What `torch.empty(0)` is to a slice of a slab: nothing but a type."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def set_(self, slab: Storage, offset: int, shape: Sequence[int]) -> SimulatedTensor:
        """A tensor in `slab`, from its element `offset` on."""
        strides = dense_strides(shape)
        return SimulatedTensor(slab.card, slab.view(self._dtype, offset, shape, strides), slab.claim)


def _torch_with_quick_slices() -> ModuleType:
    """PyTorch for the engine's loader: a tensor of nothing on a card, which is then set to a slice, is not made."""
    found = ModuleType("torch")
    empty = torch.empty

    def quick_empty(size: Any, dtype: Any = None, device: Any = None) -> Any:
        if size == 0 and dtype is not None and device is not None and device.type == "cuda":
            return _Nowhere(dtype)
        return empty(size, dtype=dtype, device=device)

    vars(found).update(vars(torch), empty=quick_empty)
    return found
