"""What is taken on a card beside PyTorch's allocator, with bare calls of cudaMalloc, and what the card held in all."""

from __future__ import annotations

_GRANULE_BYTES = 2 << 20  # the driver gives whole ones


def whole_granules(size_bytes: int) -> int:
    """What the driver gives for so many bytes."""
    return -(-size_bytes // _GRANULE_BYTES) * _GRANULE_BYTES


class BesidePyTorch:
    """Buffers that an engine's own code takes from the driver, each for the life of the process.

    PyTorch gives nothing back for them: one that does not fit beside what PyTorch has reserved is refused.
    """

    def __init__(self) -> None:
        self._sizes_bytes: dict[str, int] = {}
        self._highest_bytes = 0
        self._peak_until_now = 0  # of PyTorch, when a buffer was taken last

    @property
    def held_bytes(self) -> int:
        """All buffers."""
        return sum(self._sizes_bytes.values())

    def has(self, name: str) -> bool:
        """Whether the buffer of that name was taken."""
        return name in self._sizes_bytes

    def take(self, name: str, size_bytes: int, free_bytes: int, reserved_bytes: int, peak_reserved_bytes: int) -> bool:
        """Takes a buffer that is not there yet; False where `free_bytes` do not hold it.

        `reserved_bytes` are PyTorch's now, and `peak_reserved_bytes` at their highest.
        """
        size_bytes = whole_granules(size_bytes)
        if size_bytes > free_bytes:
            return False
        before = self.held_bytes
        self._sizes_bytes[name] = size_bytes
        self._peak_until_now = peak_reserved_bytes
        self._highest_bytes = max(self._highest_bytes, peak_reserved_bytes + before, reserved_bytes + self.held_bytes)
        return True

    def peak_bytes(self, reserved_bytes: int, peak_reserved_bytes: int) -> int:
        """The most that these buffers and PyTorch have held together."""
        risen = peak_reserved_bytes if peak_reserved_bytes > self._peak_until_now else reserved_bytes
        return max(self._highest_bytes, risen + self.held_bytes)
