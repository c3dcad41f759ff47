"""The rules of expandable segments again, in plain Python: slow, and nothing in it is kept up to date for later.

A segment is a list of pieces, each `[state, size, requested]` with the state "used", "free" or "hole". Whatever is
wanted is looked for among all pieces of all segments, each time anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

MIB = 1 << 20


class Full(Exception):
    """Out of memory."""


@dataclass(eq=False)
class Piece:
    """`size` bytes of a segment. Only pieces in use are `requested`; two that look alike are still two."""

    state: str
    size: int
    requested: int = 0


@dataclass
class Segment:
    """A range of addresses of one stream and pool, cut into pieces from its beginning to its end."""

    stream: int
    small: bool
    base: int
    pieces: list[Piece]

    @property
    def page(self) -> int:
        return 2 * MIB if self.small else 20 * MIB

    def placed(self) -> Iterator[tuple[int, Piece]]:
        """Each piece with its address."""
        address = self.base
        for piece in self.pieces:
            yield address, piece
            address += piece.size

    def address(self, piece: Piece) -> int:
        return next(address for address, each in self.placed() if each is piece)

    def tidy(self) -> None:
        """Free pieces that touch are one, and so are holes; pieces of nothing are none."""
        tidied: list[Piece] = []
        for state, group in groupby([piece for piece in self.pieces if piece.size], lambda piece: piece.state):
            if state == "used":
                tidied += group
            else:
                tidied.append(Piece(state, sum(piece.size for piece in group)))
        self.pieces = tidied


@dataclass
class PlainAllocator:
    """A card of `card` bytes with nothing else on it."""

    card: int
    fraction: int | None = None
    segments: list[Segment] = field(default_factory=list)
    next_base: int = 0
    peaks: tuple[int, int, int] = (0, 0, 0)
    retries: int = 0
    ooms: int = 0

    def now(self) -> tuple[int, int, int]:
        """Allocated, requested and reserved bytes."""
        pieces = [piece for segment in self.segments for piece in segment.pieces]
        used = [piece for piece in pieces if piece.state == "used"]
        mapped = sum(piece.size for piece in pieces if piece.state != "hole")
        return sum(piece.size for piece in used), sum(piece.requested for piece in used), mapped

    def malloc(self, requested: int, stream: int) -> tuple[Piece, int]:
        """The piece and its address. Raises `Full`."""
        size = max(512, -(-requested // 512) * 512)
        small = size <= MIB
        found = self._find_free(size, stream, small) or self._grow(size, stream, small)
        if found is None:
            self.empty_cache()
            self.retries += 1
            found = self._grow(size, stream, small)
        if found is None:
            self.ooms += 1
            raise Full
        segment, piece = found
        at = segment.pieces.index(piece)
        used = Piece("used", size, requested)
        segment.pieces[at : at + 1] = [used, Piece("free", piece.size - size)]
        segment.tidy()
        self._see_peaks()
        return used, segment.address(used)

    def free(self, piece: Piece) -> None:
        segment = next(each for each in self.segments if piece in each.pieces)
        segment.pieces[segment.pieces.index(piece)] = Piece("free", piece.size)
        segment.tidy()

    def empty_cache(self) -> None:
        for segment in list(self.segments):
            cut: list[Piece] = []
            for begin, piece in segment.placed():
                end = begin + piece.size
                first = segment.base + -(-(begin - segment.base) // segment.page) * segment.page
                last = segment.base + (end - segment.base) // segment.page * segment.page
                if piece.state == "free" and first < last:
                    cut += [Piece("free", first - begin), Piece("hole", last - first), Piece("free", end - last)]
                else:
                    cut.append(piece)
            gave = any(piece.state == "free" for piece in segment.pieces)
            segment.pieces = cut
            segment.tidy()
            if gave and [piece.state for piece in segment.pieces] == ["hole"]:
                self.segments.remove(segment)

    def _of(self, stream: int, small: bool) -> list[Segment]:
        """The segments that a request may use, by address."""
        return [each for each in self.segments if (each.stream, each.small) == (stream, small)]

    def _find_free(self, size: int, stream: int, small: bool) -> tuple[Segment, Piece] | None:
        """From the smallest on that is large enough, by size and address, as long as the next one reaches less far."""
        fitting = []
        for segment in self._of(stream, small):
            for (address, piece), behind in zip(segment.placed(), [*segment.pieces[1:], None], strict=True):
                if piece.state == "free" and piece.size >= size:
                    hole = behind.size if behind is not None and behind.state == "hole" else 0
                    fitting.append((piece.size, address, piece.size + hole, segment, piece))
        fitting.sort(key=lambda each: each[:2])
        if not fitting:
            return None
        chosen = fitting[0]
        for each in fitting[1:]:
            if each[2] >= chosen[2]:
                break
            chosen = each
        return chosen[3], chosen[4]

    def _grow(self, size: int, stream: int, small: bool) -> tuple[Segment, Piece] | None:
        """A free piece of `size` bytes or more, by mapping pages; None where the card or the fraction forbids it."""
        own_segment = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
        if self.fraction is not None and self.now()[2] + own_segment > self.fraction:
            return None
        segment, at = self._room(size, stream, small)
        free = segment.pieces[at] if segment.pieces[at].state == "free" else None
        while free is None or free.size < size:
            hole_at = at if free is None else at + 1
            hole = segment.pieces[hole_at]
            missing = size - (0 if free is None else free.size)
            mapped = -(-min(missing, hole.size) // segment.page) * segment.page
            if self.now()[2] + mapped > self.card:
                return None
            start = segment.address(segment.pieces[at])
            segment.pieces[hole_at : hole_at + 1] = [Piece("free", mapped), Piece("hole", hole.size - mapped)]
            segment.tidy()
            self._see_peaks()
            at, free = next(
                (number, each)
                for number, (address, each) in enumerate(segment.placed())
                if address <= start < address + each.size
            )
        return segment, free

    def _room(self, size: int, stream: int, small: bool) -> tuple[Segment, int]:
        """The lowest run of free pieces and holes with `size` bytes; it begins at a hole or right before one."""
        for segment in self._of(stream, small):
            for number, piece in enumerate(segment.pieces):
                if piece.state != "hole":
                    continue
                begin = number - 1 if number and segment.pieces[number - 1].state == "free" else number
                room = 0
                for each in segment.pieces[begin:]:
                    if each.state == "used" or room >= size:
                        break
                    room += each.size
                if room >= size:
                    return segment, begin
        page = 2 * MIB if small else 20 * MIB
        reach = -(-(self.card + self.card // 8) // page) * page
        segment = Segment(stream, small, self.next_base, [Piece("hole", reach)])
        self.next_base += reach
        self.segments.append(segment)
        return segment, 0

    def _see_peaks(self) -> None:
        allocated, requested, reserved = (max(a, b) for a, b in zip(self.peaks, self.now(), strict=True))
        self.peaks = (allocated, requested, reserved)
