"""How ExLlamaV2 puts a model on several cards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from bench.allocator.limits import MachineLimits, limits_of
from bench.core.case import Case
from bench.core.split import Split, SplitBy
from bench.engines.exllamav2.device_map import GIB, DeviceMap, MapSizes
from bench.engines.exllamav2.tensor_split import DividedSizes, Parts, TensorSplit
from bench.trace.best_replay import BestReplayer
from bench.trace.divided_replay import DividedReplayer, Division
from bench.trace.passes import NoPrediction
from bench.trace.placed_replay import PlacedReplayer, Placement
from bench.trace.split import BEGINNING, SplitTrace, Stretch
from bench.trace.split_replay import SplitReplayer

_MIB = 1 << 20
# ExLlamaV2.load_autosplit_gen
_RESERVE_FIRST, _RESERVE_OTHERS = 192 * _MIB, 64 * _MIB
_ANY_REST_GIB = 1e9
_KEPT_PLACEMENTS = 4096
_MOST_DIGITS = 4


AnySplitReplayer = SplitReplayer | PlacedReplayer | BestReplayer | DividedReplayer


def split_replayer(trace: SplitTrace, tensor_bytes: Mapping[str, int], case: Case) -> AnySplitReplayer:
    """Of a search on several cards, as its split says. Raises `NoPrediction`."""
    split = Split.parse(str(case.split))
    replayer = _replayer_of(split, trace, tensor_bytes, case)
    if case.load_as is not None and split.by is not SplitBy.AUTO:
        # What goes where is counted with the chunk, which a server makes no longer than the context.
        replayer.shortest = case.max_input_len
    return replayer


def _replayer_of(split: Split, trace: SplitTrace, tensor_bytes: Mapping[str, int], case: Case) -> AnySplitReplayer:
    if split.by is SplitBy.BEST:
        return BestReplayer(trace, tensor_bytes, ManualDivisions(_device_map(trace, tensor_bytes)))
    if split.by is SplitBy.GPU_SPLIT and split.gpu_split_gib is not None:
        device_map = _device_map(trace, tensor_bytes)
        split_gib = split.gpu_split_gib

        @lru_cache(_KEPT_PLACEMENTS)
        def place(max_seq_len: int, has_room_for_the_rest: bool) -> Placement | None:
            given = (*split_gib[:-1], _ANY_REST_GIB) if has_room_for_the_rest else split_gib
            cards = device_map.cards_of(given, max_seq_len)
            return None if cards is None else placement(device_map, cards, len(given))

        are_alike = len({limits_of(device, None).workspace_bytes for device in case.devices}) == 1
        return PlacedReplayer(trace, tensor_bytes, place, lambda length: lack(device_map, split, length), are_alike)
    if split.by is SplitBy.TENSOR_PARALLEL:
        return _divided_replayer(trace, tensor_bytes, case, split)
    count = len(case.devices)
    reserve = split.reserve_bytes or (_RESERVE_FIRST, *[_RESERVE_OTHERS] * (count - 1))
    return SplitReplayer(trace, tensor_bytes, reserve)


def lack(device_map: DeviceMap, split: Split, max_seq_len: int) -> str | None:
    """What a gpu_split is short of: the least change of one number that does; None where all modules have a card."""
    given = list(split.gpu_split_gib or ())
    if device_map.cards_of(given, max_seq_len) is not None:
        return None
    enough: list[tuple[float, list[float]]] = []
    for card in range(len(given)):
        first = device_map.count_held(given[:card], max_seq_len)
        for needed in device_map.needed_gib(first, max_seq_len).tolist():
            more = math.ceil(needed * 10) / 10
            if more > given[card]:
                changed = [*given[:card], more, *given[card + 1 :]]
                if device_map.cards_of(changed, max_seq_len) is not None:
                    enough.append((more - given[card], changed))
                    break
    counted = f"{float(device_map.needed_gib(0, max_seq_len)[-1]):.1f} GiB of weights and buffers"
    least = Split(SplitBy.GPU_SPLIT, tuple(min(enough)[1])).typed
    return (
        f"split={split.typed} is too small for the model at {max_seq_len:,} tokens, before any cache: the engine "
        f"counts {counted}; the smallest change that holds it is split={least}"
    )


def _divided_replayer(trace: SplitTrace, tensor_bytes: Mapping[str, int], case: Case, split: Split) -> DividedReplayer:
    """Of tensor parallelism, which divides by the numbers that are given, or else by what each card has free."""
    assert trace.split_sizes is not None
    sizes = DividedSizes(**trace.split_sizes["sizes"])
    tensor_split = TensorSplit(sizes, trace.first.depth, tensor_bytes, case.cache)

    @lru_cache(_KEPT_PLACEMENTS)
    def parts_of(max_seq_len: int, limits: MachineLimits) -> Parts | None:
        given = split.gpu_split_gib or [card.torch_bytes // _MIB / 1024 for card in limits.cards]
        return tensor_split.parts(given, max_seq_len * case.batch_size)

    @lru_cache(_KEPT_PLACEMENTS)
    def divide(max_seq_len: int, limits: MachineLimits) -> Division:
        parts = parts_of(max_seq_len, limits)
        if parts is None:
            raise NoPrediction("beside the cache the engine finds room for no MLP on any card, and ends")
        for card in range(len(limits.cards)):
            if not all(part[card] for part in parts):
                raise NoPrediction(f"card {card} would have no part of some matrices, which no recording shows")
        return Division(parts, tuple(tensor_split.scratch_bytes(parts)))

    def cannot_run(max_seq_len: int, limits: MachineLimits) -> bool:
        """Where the engine ends, or writes to parts of a layer that are not there, or some card is surely full."""
        parts = parts_of(max_seq_len, limits)
        if parts is None or any(bool(columns) != bool(outputs) for columns, outputs in zip(*parts[1:3], strict=True)):
            return True
        least = tensor_split.least_bytes(parts, max_seq_len * case.batch_size)
        return any(size > card.torch_bytes for size, card in zip(least, limits.cards, strict=True))

    return DividedReplayer(trace, tensor_bytes, divide, cannot_run)


class ManualDivisions:
    """What `gpu_split` can do; see `bench.trace.best_replay.Divisions`."""

    def __init__(self, device_map: DeviceMap) -> None:
        self._map = device_map
        self.count = len(device_map.places)
        # A card that begins with a module of next to nothing would need a number that nobody types.
        self.cuts = [0, *(n for n in range(1, self.count) if device_map.footprints[n] >= _MIB), self.count]

    def placement(self, cuts: Sequence[int]) -> Placement:
        """The modules of each card."""
        cards = [sum(cut <= number for cut in cuts) for number in range(self.count)]
        return placement(self._map, cards, len(cuts) + 1)

    def split_gib(self, cuts: Sequence[int], max_seq_len: int, limits: MachineLimits) -> tuple[float, ...] | None:
        """The numbers with the fewest digits that do; the last card that is used has what it has, or more."""
        wanted = [sum(cut <= number for cut in cuts) for number in range(self.count)]
        told: list[float] = []
        for card, (first, end) in zip(limits.cards, pairwise([0, *cuts, self.count]), strict=True):
            if first == end:
                told.append(0.0)
                continue
            needed = self._map.needed_gib(first, max_seq_len)
            least = float(needed[end - first - 1])
            if end == self.count:
                told.append(float(max(math.ceil(least), math.ceil(card.total_bytes / GIB))))
                continue
            for digits in range(1, _MOST_DIGITS + 1):
                number = math.ceil(least * 10**digits) / 10**digits
                if number < needed[end - first]:
                    told.append(number)
                    break
            else:
                return None
        return tuple(told) if self._map.cards_of(told, max_seq_len) == wanted else None


def placement(device_map: DeviceMap, cards: Sequence[int], count: int) -> Placement:
    """Where the modules are, by the card of each; `count` are all cards."""
    places = [BEGINNING, *device_map.places[1:], None]
    ends = [index for index, (card, following) in enumerate(pairwise(cards), 1) if card != following]
    stretches: list[Stretch | None] = [None] * count
    for first, end in pairwise([0, *ends, len(cards)]):
        begin = places[first]
        assert begin is not None
        stretches[cards[first]] = Stretch(begin, places[end])
    return Placement(tuple(stretches), tuple(device_map.scratch_bytes(cards, count)))


def _device_map(trace: SplitTrace, tensor_bytes: Mapping[str, int]) -> DeviceMap:
    if trace.split_sizes is None:
        raise NoPrediction("its recording does not tell what the engine counts")
    return DeviceMap(MapSizes.from_plain(trace.split_sizes), trace.first.depth, tensor_bytes)
