"""The null GPU from Python: which cards it is, what is held of each, what its next answers are."""

from __future__ import annotations

import ctypes
from typing import NamedTuple


class NullCard(NamedTuple):
    """`context_bytes` are taken from the card before anything is allocated."""

    total_bytes: int
    context_bytes: int = 0
    compute_capability: tuple[int, int] = (8, 6)
    num_sms: int = 82


class NullGpu:
    """The library that is preloaded into this process. Raises RuntimeError where it is not."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        if not hasattr(self._library, "null_gpu_set"):
            raise RuntimeError("the null GPU is not preloaded: start this with scripts/oracle.sh")
        self._library.null_gpu_used.restype = ctypes.c_size_t
        numbers = 3 * [ctypes.c_int]
        self._library.null_gpu_set.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t, *numbers]
        self._library.null_gpu_resize.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t]
        self._library.null_gpu_answer.argtypes = [ctypes.c_size_t, ctypes.c_int64]

    def be(self, card: NullCard, index: int = 0) -> None:
        """From now on `cuda:index` is this card. PyTorch reads most of its properties once in a process."""
        of_kind = (*card.compute_capability, card.num_sms)
        self._library.null_gpu_set(index, card.total_bytes, card.context_bytes, *of_kind)

    def resize(self, total_bytes: int, context_bytes: int, index: int = 0) -> None:
        """The same kind of card, of another size."""
        self._library.null_gpu_resize(index, total_bytes, context_bytes)

    def used_bytes(self, index: int = 0) -> int:
        """All that cudaMalloc has given out of a card."""
        return int(self._library.null_gpu_used(index))

    def answer(self, num_bytes: int, value: int) -> None:
        """The next read of `num_bytes` from the card finds `value`."""
        self._library.null_gpu_answer(num_bytes, value)
