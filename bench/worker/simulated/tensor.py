"""CUDA tensors without CUDA: shapes, dtypes, strides and storages are real, bytes are not.

A `SimulatedTensor` stands for a tensor on one of the cards. Inside it is a meta tensor, which PyTorch's own meta
kernels work on, and a claim on a block of that card's allocator, shared by all views of one storage and given back with
the last of them. `SimulatedCuda` is the dispatch mode that makes such tensors wherever the engine names a CUDA device.

Few tensors carry values. A number that steers the engine's control flow (RoPE frequencies, group tables, expert
routing) is kept as a small tensor on the CPU and computed alongside; everything else is shape only.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.allocator.flash import Call
from bench.worker.simulated.card import Claim, SimulatedCard
from bench.worker.simulated.output_shapes import OutputShapes
from bench.worker.simulated.storage import Storage, dense_strides

_META = torch.device("meta")
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
# Values are started for tensors up to this many elements: enough for every table that the host reads.
MAX_ELEMENTS_WITH_VALUES = 4096
# Zeros on the CPU from this size on come from fresh pages, which cost nothing until they are written.
_LAZY_ZEROS_BYTES = 1 << 20
# Linux's MAP_NORESERVE: they may be more than the machine has, since nothing is written.
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0


class Observer:
    """Is told what the allocator cannot know of an allocation; the base listens to nothing."""

    def attention(self, call: Call, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The next allocations are the temporaries of a flash-attn call; returns the sizes that are to be taken."""
        return sizes

    def sort(self, length: int) -> None:
        """The next allocation is the workspace for sorting a row of `length` numbers."""

    def weight(self, filename: str, offset: int, target: torch.Tensor) -> None:
        """A tensor of a checkpoint, at `offset` in its file, has been read into `target`."""

    def moved(self, source: torch.Tensor, target: SimulatedTensor) -> None:
        """`source`, on the host, was copied to the card."""

    def copying(self, source: SimulatedTensor) -> None:
        """The next allocation is for a copy of `source`, on whatever card."""

    def beside(self, index: int, number: int, size_bytes: int) -> None:
        """The card `index` has a buffer beside PyTorch's for the life of the process; `number` is the buffer's own."""


class SimulatedTensor(torch.Tensor):
    """A tensor on a simulated card: `meta` has its shape, `claim` its memory, `numbers` its values if known."""

    card: SimulatedCard
    meta: torch.Tensor
    claim: Claim | None
    numbers: torch.Tensor | None

    @staticmethod
    def __new__(
        cls, card: SimulatedCard, meta: torch.Tensor, claim: Claim | None, values: torch.Tensor | None = None
    ) -> SimulatedTensor:
        # Always an inference tensor: autograd's bookkeeping of views and versions then stays out of the way.
        """A tensor on `card` with the shape of `meta`, whose memory is `claim`."""
        with torch._C._InferenceMode(True):
            self: SimulatedTensor = torch.Tensor._make_wrapper_subclass(
                cls,
                meta.size(),
                strides=meta.stride(),
                storage_offset=meta.storage_offset(),
                dtype=meta.dtype,
                device=card.device,
            )
        self.card = card
        self.meta = meta
        self.claim = claim
        self.numbers = values
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func} on a simulated tensor outside of its card")

    def tolist(self) -> Any:
        """The values, if they are known; raises `UnknownValue` where they are not."""
        return self.cpu().tolist()  # PyTorch's own reads the bytes

    # Engines that carve tensors out of larger ones, or hand out pointers, ask for these. A wrapper's own are empty.

    @property
    def data(self) -> SimulatedTensor:  # type: ignore[override]
        """Itself: there is no autograd to be left."""
        return self

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """Of its elements, without gaps."""
        return self.numel() * self.dtype.itemsize

    def data_ptr(self) -> int:
        """Its address on the card; 0 for an empty tensor."""
        if self.claim is None:
            return 0
        return self.claim.address + int(self.meta.storage_offset()) * self.dtype.itemsize

    def untyped_storage(self) -> Storage:  # type: ignore[override]
        """The memory that it shares with its views."""
        return Storage(self.card, self.claim, self.meta.untyped_storage().nbytes())

    def set_(  # type: ignore[override]
        self, source: Storage, storage_offset: int = 0, size: Sequence[int] = (), stride: Sequence[int] | None = None
    ) -> SimulatedTensor:
        """A tensor of this one's type in `source`, from its element `storage_offset` on; this one stays as it is."""
        strides = dense_strides(size) if stride is None else stride
        return SimulatedTensor(source.card, source.view(self.dtype, storage_offset, size, strides), source.claim)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"SimulatedTensor({tuple(self.meta.shape)}, {self.meta.dtype})"


class UnknownValue(RuntimeError):
    """The engine asked for a number that only a real card could have computed."""


Rule = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
PartOf = Callable[[FrameType | None], int]


class SimulatedCuda(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs every operator on simulated tensors as PyTorch's CUDA back end would allocate for it.

    `special` holds the operators whose CUDA kernels allocate more than their outputs, or whose outputs depend on
    data; each is called as `rule(cuda, func, args, kwargs)`. A process has one, because an engine imports its extension
    once; `start` puts it on other cards.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard against it costs a third of every operator

    cards: Sequence[SimulatedCard]
    _part_of: PartOf

    def __init__(self, special: dict[Any, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current = 0  # the card that is meant where none is named
        self.peer_access = False
        self.observer = Observer()
        self._special = special
        self._rules: dict[Any, Rule] = {}
        self._shapes = OutputShapes()

    def start(self, cards: Sequence[SimulatedCard], part_of: PartOf, peer_access: bool = False) -> None:
        """New cards, in the order of their numbers. `peer_access` says whether they reach each other's memory.

        `part_of` tells which part the code that runs in a frame allocates for.
        """
        self.cards = cards
        self.current = 0
        self.peer_access = peer_access
        self._part_of = part_of
        self.observer = Observer()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = self._rules.get(func)
        if rule is None:
            rule = self._rules[func] = self._learn(func)
        return rule(func, args, kwargs or {})

    # What the rules and the stand-ins for extensions build with.

    def card_named(self, device: torch.device) -> SimulatedCard:
        """The card of a CUDA device, which need not say a number."""
        return self.cards[self.current if device.index is None else device.index]

    def claim(self, card: SimulatedCard, size_bytes: int) -> Claim | None:
        """Memory for `size_bytes` on the card's current stream; none for nothing. Raises torch.OutOfMemoryError."""
        if size_bytes == 0:
            return None
        return card.take(size_bytes, self._part_of(sys._getframe(1)))

    def fresh(self, card: SimulatedCard, meta: torch.Tensor, values: torch.Tensor | None = None) -> SimulatedTensor:
        """A new tensor with memory of its own, in the shape of `meta`."""
        size_bytes = meta.untyped_storage().nbytes()
        claim = card.take(size_bytes, self._part_of(sys._getframe(1))) if size_bytes else None
        return SimulatedTensor(card, meta, claim, values)

    def card_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SimulatedCard | None:
        """Where an operator runs and makes its outputs: the card that it is told, or that of its first input on one.

        None for an operator on the host.
        """
        if kwargs:
            device: Any = kwargs.get("device")
            if is_cuda_device(device):
                return self.card_named(device)
        for arg in args:
            if type(arg) is SimulatedTensor:
                return arg.card
            if is_cuda_device(arg):
                return self.card_named(arg)
            if isinstance(arg, list | tuple):
                for each in arg:
                    if type(each) is SimulatedTensor:
                        return each.card
        for arg in kwargs.values():
            if type(arg) is SimulatedTensor:
                return arg.card
        return None

    # The ways in which an operator can be run.

    def _learn(self, func: Any) -> Rule:
        special = self._special.get(func)
        if special is not None:
            return lambda func, args, kwargs: special(self, func, args, kwargs)
        if func._can_decompose():
            return self.run_composite
        infos = [r.alias_info for r in func._schema.returns]
        if any(info is not None and info.is_write for info in infos):
            return self._run_in_place
        if func in _VIEWS_UNDECLARED or any(info is not None for info in infos):
            return self._run_view
        return self.run

    def run_composite(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator that consists of others."""
        if self.card_of(args, kwargs) is None:
            return func(*args, **kwargs)
        # Under inference mode a composite arrives whole: take it apart with this mode on, to see its temporaries. The
        # C++ kernel, which the real card runs too, comes before any Python decomposition.
        with self:
            if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
                return func._op_dk(_COMPOSITE, *args, **kwargs)
            return func.decompose(*args, **kwargs)

    def _run_in_place(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.card_of(args, kwargs) is None:
            return func(*args, **kwargs)
        if torch.Tag.pointwise not in func.tags:  # those leave their target's shape as it is
            func(*_lower(args), **_lower(kwargs))
        target = kwargs.get("out", args[0]) if kwargs else args[0]
        if isinstance(target, SimulatedTensor) and target.numbers is not None:
            values = _values(args, kwargs)
            if values is None:
                target.numbers = None
            else:
                func(*values[0], **values[1])
        return target

    def _run_view(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        base = args[0]
        if type(base) is not SimulatedTensor:
            return func(*args, **kwargs)
        out = func(base.meta, *args[1:], **kwargs)
        values = None if base.numbers is None else func(base.numbers, *args[1:], **kwargs)
        card, claim = base.card, base.claim
        if isinstance(out, torch.Tensor):
            return SimulatedTensor(card, out, claim, values)
        return [SimulatedTensor(card, o, claim, None if values is None else values[i]) for i, o in enumerate(out)]

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator that makes new tensors, on the card where it belongs or on the host."""
        card = self.card_of(args, kwargs)
        return func(*args, **kwargs) if card is None else self.run_fresh(card, func, args, kwargs)

    def run_fresh(self, card: SimulatedCard, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Outputs with memory of their own on `card`, in order, as a structured CUDA kernel allocates them."""
        out = self._shapes.of(func, _lower(args), _lower(kwargs))
        values = self._compute_values(func, args, kwargs, out)
        if isinstance(out, torch.Tensor):
            return self.fresh(card, out, values)
        if isinstance(out, tuple | list):
            known = values if values is not None else [None] * len(out)
            return type(out)(
                self.fresh(card, o, v) if isinstance(o, torch.Tensor) else o for o, v in zip(out, known, strict=True)
            )
        return out

    def _compute_values(self, func: Any, args: Any, kwargs: Any, out: Any) -> Any:
        first = out[0] if isinstance(out, tuple | list) else out
        if not isinstance(first, torch.Tensor) or first.numel() > MAX_ELEMENTS_WITH_VALUES:
            return None
        if func in _UNINITIALISED:
            return None
        values = _values(args, kwargs)
        if values is None:
            return None
        return func(*values[0], **values[1])


# The second half of a reshape that copies: shares its input's storage, and its schema does not say so.
_VIEWS_UNDECLARED = {torch.ops.aten._unsafe_view.default}
_UNINITIALISED = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.empty_like.default,
    torch.ops.aten.new_empty.default,
    torch.ops.aten.new_empty_strided.default,
}


def is_cuda_device(device: Any) -> bool:
    """Whether `device` is a CUDA device."""
    return isinstance(device, torch.device) and device.type == "cuda"


def _lower(arg: Any) -> Any:
    """The same arguments for the meta back end."""
    if type(arg) is SimulatedTensor:
        return arg.meta
    if isinstance(arg, torch.Tensor):
        return arg if arg.dim() == 0 else arg.to(_META)
    if isinstance(arg, tuple | list):
        return type(arg)(_lower(a) for a in arg)
    if isinstance(arg, dict):
        return {key: _lower(value) for key, value in arg.items() if key != "pin_memory"}
    return _META if is_cuda_device(arg) else arg


def _values(args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """The same arguments with the numbers of every simulated tensor, on the CPU; None if one is not known."""
    try:
        return _known(args), _known(kwargs)
    except UnknownValue:
        return None


def _known(arg: Any) -> Any:
    if type(arg) is SimulatedTensor:
        if arg.numbers is None:
            raise UnknownValue
        return arg.numbers
    if isinstance(arg, tuple | list):
        return type(arg)(_known(a) for a in arg)
    if isinstance(arg, dict):
        return {key: _known(value) for key, value in arg.items() if key != "pin_memory"}
    return torch.device("cpu") if is_cuda_device(arg) else arg


def lazy_zeros(shape: Any, dtype: torch.dtype) -> torch.Tensor:
    """Zeros on the CPU without touching their memory: weights that pass through the host are never written."""
    size_bytes = dtype.itemsize
    for extent in shape:
        size_bytes *= extent
    if size_bytes < _LAZY_ZEROS_BYTES:
        return torch.zeros(shape, dtype=dtype)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    return torch.frombuffer(mmap.mmap(-1, size_bytes, flags=flags), dtype=dtype).view(shape)
