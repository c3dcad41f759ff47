"""Writes down every allocation of a case while the engine runs it on a simulated card of endless size.

Recordings at different lengths are solved for the lengths (bench.trace.solve), so that any other length, bit width or
card can be answered by a replay. A deep model is recorded with a few layers: they all do the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from bench.allocator.caching import CachingAllocator
from bench.allocator.flash import Call
from bench.allocator.parts import PARTS, RESERVE, SCRATCH, WORKSPACE
from bench.core.case import Case
from bench.engines.steps import steps_of
from bench.scenarios.base import Act
from bench.tensor_files import read_header
from bench.trace import parametric as trace
from bench.trace.divided import following_parts
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import NoPrediction, Pass
from bench.trace.recording import RESERVE_BYTES, Event, Op, Recording, Section, Size
from bench.trace.solve import solve
from bench.trace.split import FIRST, Place, SplitTrace, beginning_of, card_name
from bench.worker.engines.base import Beginning, Division, Recordable
from bench.worker.engines.registry import worker_engine
from bench.worker.scenario import directories_of, perform
from bench.worker.simulated.beside import whole_granules
from bench.worker.simulated.machine import SimulatedMachine, open_machine
from bench.worker.simulated.tensor import Observer, SimulatedTensor

_ENDLESS_BYTES = 1 << 60
# A chunk that is tried is a pass, which begins a section by itself.
_OF_LOADING = (Act.LOAD_DRAFT, Act.CACHE_DRAFT, Act.VISION, Act.LOAD, Act.CACHE, Act.TRY, Act.SERVE, Act.TRIM)
_BY_PART = {WORKSPACE: Size.WORKSPACE, SCRATCH: Size.SCRATCH}
_BY_PART_APART = {WORKSPACE: Size.WORKSPACE}


class Recorder(Observer):
    """Hears what the engine is about; its `cards` are allocators that never run out, and note everything.

    Allocations are named by the tensors that are read into them, unless they are recorded `apart` (`Recordable`).
    """

    def __init__(self, recordings: Sequence[Recording], apart: bool = False, names_copies: bool = False) -> None:
        """With `names_copies` a copy of a named tensor, or of a part of it, is named by it as well."""
        self.apart = apart
        self._names_copies = names_copies
        self.copied: tuple[str, tuple[int, int]] | None = None  # the tensor that the next allocation has a share of
        self.cards = [NotingCard(self, recording) for recording in recordings]
        self.layer = -1
        self.module = 0
        self.of_draft = False
        # What the next allocations are for, and the numbers that are sorted in them.
        self.expected: list[tuple[Size, Call | None, int | None]] = []
        self._tensors: dict[str, dict[int, str]] = {}
        self._on_host: dict[
            int, tuple[torch.Tensor, str]
        ] = {}  # what was read to the host, kept so that it stays itself

    def enter(self, q_len: int = 0, k_len: int = 0) -> None:
        """A new section begins."""
        for card in self.cards:
            card.enter(q_len, k_len)
        self.layer, self.module = -1, 0

    def keeps_free(self, reserve_bytes: int) -> None:
        """Some of the first card, or none, while it is filled."""
        self.cards[0].note(Op.KEEP_FREE if reserve_bytes else Op.KEEP_NOTHING_FREE, reserve_bytes)

    def tries(self) -> None:
        """A part of the model, on the first card."""
        self.cards[0].note(Op.WATCH)

    def requires(self, margin_bytes: int) -> None:
        """That what any part has needed is left on the first card."""
        self.cards[0].note(Op.REQUIRE, margin_bytes)

    def scratch(self, lines: list[tuple[int, int]], of_draft: bool = False) -> None:
        """What the model wants of scratch, or its draft model."""
        for card in self.cards:
            if of_draft:
                card.recording.draft_scratch = lines
            else:
                card.recording.scratch = lines

    def split_sizes(self, tell: Callable[[], dict[str, Any]]) -> None:
        """What the engine counts when it is told how much goes on which card."""
        if len(self.cards) > 1:
            self.cards[0].recording.split_sizes = tell()

    def divided(self, parts: tuple[tuple[int, ...], ...]) -> None:
        """How every layer is divided: of each part, what each card has of it."""
        for card in self.cards:
            card.recording.divided = parts

    def pause(self) -> None:
        """What is freed from now on is no part of the recording, until a new section begins."""
        for card in self.cards:
            card.events = []

    def attention(self, call: Call, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The next three allocations are the temporaries of this call."""
        self.expected = [(size, call, None) for size in (Size.FLASH_0, Size.FLASH_1, Size.FLASH_2)]
        return tuple(max(1, size) for size in sizes)  # on another card all three may be there: keep their places

    def sort(self, length: int) -> None:
        """The next allocation is the workspace to sort `length` numbers."""
        self.expected = [(Size.SORT, None, length)]

    def weight(self, filename: str, offset: int, target: torch.Tensor) -> None:
        """`target` is read from `offset` in the file: names the tensor, on the card or on the host."""
        if self.apart:
            return
        if filename not in self._tensors:
            entries = read_header(Path(filename))
            prefix = trace.DRAFT if self.of_draft else ""
            self._tensors[filename] = {entry.start: f"{prefix}{name}" for name, entry in entries.items()}
        name = self._tensors[filename][offset]
        if isinstance(target, SimulatedTensor):
            self.cards[target.card.index].name(target, name)
        else:
            self._on_host[target.data_ptr()] = (target, name)

    def moved(self, source: torch.Tensor, target: SimulatedTensor) -> None:
        """A tensor that was read on the host is copied to the card as it is: names its allocation."""
        read = self._on_host.pop(source.data_ptr(), None)
        # A slice of it, or a cast one, is of a size of its own.
        if read is not None and source.dtype == target.dtype and source.shape == read[0].shape:
            self.cards[target.card.index].name(target, read[1])

    def copying(self, source: SimulatedTensor) -> None:
        """The next allocation is for a copy of `source`, which may be a part of a named tensor."""
        if not self._names_copies or source.claim is None or not source.numel():
            return
        named = self.cards[source.card.index].named.get(source.claim.block)
        if named is not None:
            name, size_bytes = named
            share = Fraction(source.numel() * source.dtype.itemsize, size_bytes)
            self.copied = name, share.as_integer_ratio()

    def beside(self, index: int, number: int, size_bytes: int) -> None:
        """A buffer is used that the driver gives in whole granules."""
        self.cards[index].beside(number, whole_granules(size_bytes))


class NotingCard(CachingAllocator):
    """One card of a `Recorder`."""

    def __init__(self, recorder: Recorder, recording: Recording) -> None:
        super().__init__(_ENDLESS_BYTES, len(PARTS))
        self.recording = recording
        self.events: list[Event] = []
        self._recorder = recorder
        self._numbers: dict[int, int] = {}  # the number of the allocation that each live block came from
        self._count = 0
        self.named: dict[int, tuple[str, int]] = {}  # by live block the tensor that was read into it, and its bytes
        self._beside: set[int] = set()  # the buffers that were wanted in this section

    def enter(self, q_len: int, k_len: int) -> None:
        """A new section begins."""
        self.recording.sections.append(Section(q_len, k_len))
        self._beside.clear()
        self.events = self.recording.sections[-1].events

    def malloc(self, size_bytes: int, stream: int = 0, part: int = 0) -> int:
        """Allocates, and records the event with what decides its size."""
        row = super().malloc(size_bytes, stream, part)
        self._numbers[row] = self._count
        by_part = _BY_PART_APART if self._recorder.apart else _BY_PART
        size, call, length = by_part.get(part, Size.LENGTHS), None, None
        if size is Size.SCRATCH and self._recorder.of_draft:
            size = Size.DRAFT_SCRATCH
        if part == RESERVE and size_bytes == RESERVE_BYTES and not self._recorder.apart:
            size = Size.RESERVE
        if self._recorder.expected:
            size, call, length = self._recorder.expected.pop(0)
        asked = size_bytes if length is None else length
        event = Event(Op.MALLOC, self._count, asked, stream, part, size=size, call=call)
        if self._recorder.copied is not None:
            (name, share), self._recorder.copied = self._recorder.copied, None
            event = event._replace(size=Size.TENSOR, tensor=name, share=share)
        self._note(event)
        self._count += 1
        return row

    def free(self, row: int) -> None:
        """Frees, and records the event."""
        super().free(row)
        self.named.pop(row, None)
        self._note(Event(Op.FREE, self._numbers.pop(row)))

    def empty_cache(self) -> None:
        """Empties the cache, and records the event."""
        super().empty_cache()
        self._note(Event(Op.EMPTY_CACHE))

    def note(self, op: Op, size_bytes: int = 0) -> None:
        """Records what asks for nothing."""
        self._note(Event(op, size_bytes=size_bytes))

    def beside(self, number: int, size_bytes: int) -> None:
        """Records that a buffer is wanted, once a section."""
        if number not in self._beside:
            self._beside.add(number)
            self._note(Event(Op.BESIDE, size_bytes=size_bytes, part=number))

    def name(self, target: SimulatedTensor, name: str) -> None:
        """The last allocation, which `target` has just been given, holds the tensor `name`."""
        if target.claim is not None:
            last = self.events[-1]
            assert last.block == self._numbers[target.claim.block]
            self.events[-1] = last._replace(size=Size.TENSOR, tensor=name)
            self.named[target.claim.block] = name, last.size_bytes

    def _note(self, event: Event) -> None:
        layer = self._recorder.layer - self.recording.first_layer
        self.events.append(event._replace(layer=max(layer, -1), module=self._recorder.module))


def make_trace(case: Case, layouts: Path) -> ParametricTrace | SplitTrace:
    """The trace of `case`'s searches; its `max_seq_len` and `cache_size` do not matter, but for tokens beyond pages.

    Raises whatever stands in the way.
    """
    case = dataclasses.replace(case, cache_size=None)
    with _open_machine(case) as simulated:
        how = worker_engine(case.engine).recordable(case, simulated)
    if how.divisions:
        return _make_divided_trace(how, layouts)

    split_sizes: dict[str, Any] | None = None

    def trace_of(beginning: Beginning | None) -> ParametricTrace:
        nonlocal split_sizes
        recordings = []
        case = how.case if beginning is None else beginning.case
        num_layers = how.num_layers if beginning is None else beginning.num_layers
        for at_length, is_whole in _samples(case, how):
            extra = how.setup.extra_passes(at_length.max_seq_len) if is_whole else None
            recordings.append(record(at_length, layouts, extra, num_layers, how.period, beginning, how.apart))
            recordings[-1].draft = how.draft
        split_sizes = recordings[0].split_sizes or split_sizes
        repeats = recordings[0].num_layers > 1 if case.more_devices else None
        solved = solve(recordings, how.setup, how.depth, repeats)
        return dataclasses.replace(solved, reading=how.reading.to_plain())

    if not case.more_devices:
        return trace_of(None)
    others = {beginning_of(Place(each.layer, each.module), each.depth): trace_of(each) for each in how.beginnings}
    return SplitTrace({FIRST: trace_of(None), **others}, split_sizes)


def _samples(case: Case, how: Recordable) -> list[tuple[Case, bool]]:
    """What is recorded of a search: its cases at some lengths, and whether they are recorded to their ends."""
    setup = how.setup
    whole: list[tuple[int, int | None]] = [(length, None) for length in setup.whole_lengths()]
    samples = [(length, size, True) for length, size in (*whole, *setup.larger_caches())]
    samples += [(length, None, False) for length in (setup.load_lengths() if not how.apart else ())]
    return [(dataclasses.replace(case, max_seq_len=n, cache_size=size), is_whole) for n, size, is_whole in samples]


def _make_divided_trace(how: Recordable, layouts: Path) -> SplitTrace:
    """Of a model whose layers are divided among cards: a trace of each card, which says what follows its parts."""

    def cards_of(case: Case, division: Division, is_whole: bool) -> list[Recording]:
        extra = how.setup.extra_passes(case.max_seq_len) if is_whole else None
        return record_cards(case, layouts, extra, how.num_layers, how.period, division)

    first, *others = how.divisions
    samples = _samples(how.case, how)
    solved = [cards_of(case, first, is_whole) for case, is_whole in samples]
    compared = [cards_of(samples[0][0], division, is_whole=True) for division in others]
    if any(cards[0].divided != solved[0][0].divided for cards in solved):
        raise NoPrediction("the division among cards changes with the length as it is recorded")
    divisions = [cards[0].divided for cards in (solved[0], *compared)]
    traces = {}
    for number in range(len(how.case.devices)):
        trace = solve([cards[number] for cards in solved], how.setup, how.depth, not how.case.model.has_weights)
        trace = following_parts(trace, [cards[number] for cards in compared], divisions)
        traces[card_name(number)] = dataclasses.replace(trace, reading=how.reading.to_plain())
    return SplitTrace(traces, {"sizes": solved[0][0].split_sizes, "divisions": divisions})


def make_loading(case: Case, layouts: Path) -> ParametricTrace:
    """The trace of the beginning of `case`'s search, with every layer of its own checkpoint."""
    case = dataclasses.replace(case, cache_size=None)
    with _open_machine(case) as simulated:
        how = worker_engine(case.engine).recordable(case, simulated)
    recordings = []
    lengths: list[tuple[int, int | None]] = [(length, None) for length in how.setup.load_lengths()]
    for length, cache_size in (*lengths, *how.setup.larger_caches()):
        at_length = dataclasses.replace(case, max_seq_len=length, cache_size=cache_size)
        recordings.append(record(at_length, layouts, None, how.depth, how.period, apart=True))
    return dataclasses.replace(solve(recordings, how.setup, how.depth), reading=how.reading.to_plain())


def save_tensor_bytes(path: Path, case: Case, layouts: Path) -> None:
    """Writes the size of every tensor of `case`'s checkpoint."""
    with _open_machine(case) as simulated:
        directory = simulated.model_dir(case, layouts)
    sizes: dict[str, int] = {}
    for file in directory.glob("*.safetensors"):
        sizes.update({name: entry.size_bytes for name, entry in read_header(file).items()})
    trace.save_tensor_bytes(path, sizes)


def record(
    case: Case,
    layouts: Path,
    extra: Sequence[Pass] | None = (),
    num_layers: int = 0,
    period: int = 1,
    beginning: Beginning | None = None,
    apart: bool = False,
) -> Recording:
    """As `record_cards`; that of the first card, or of the second which has the `beginning`."""
    cards = record_cards(case, layouts, extra, num_layers, period, beginning, apart)
    return cards[0 if beginning is None else 1]


def record_cards(
    case: Case,
    layouts: Path,
    extra: Sequence[Pass] | None = (),
    num_layers: int = 0,
    period: int = 1,
    how: Beginning | Division | None = None,
    apart: bool = False,
) -> list[Recording]:
    """Carries out the steps of `case` and then the `extra` passes; where they are None, only those of its beginning.

    That is loading, and of what is recorded `apart` (`Recordable`) also what comes before a prompt of any length.

    There is a recording of each card; `num_layers` and `period` are put into them as they are.
    """
    engine = worker_engine(case.engine)
    first_layers = [0, *(how.first_layer if isinstance(how, Beginning) else 0 for _ in case.more_devices)]
    recordings = [
        Recording(
            case.max_seq_len,
            num_layers,
            period,
            first_layer=first,
            is_whole=extra is not None,
            cache_size=case.cache_size,
        )
        for first in first_layers
    ]
    with _open_machine(case) as simulated:
        recorder = Recorder(recordings, apart, names_copies=isinstance(how, Division))
        simulated.use(recorder.cards, recorder)
        with engine.marked(recorder, how):
            session = engine.session(case, simulated)
            session.open(*directories_of(case, simulated, layouts))
            session.build()
            for step in steps_of(case, simulated.pace):
                is_any_prompt = step.act in (Act.FILL, Act.BEGIN) and step.name is None
                if step.act in _OF_LOADING:
                    if step.act is not Act.TRY:
                        recorder.enter()
                elif apart and is_any_prompt and step.act is Act.FILL and extra is not None:
                    continue
                elif extra is None and (not apart or is_any_prompt):
                    break
                perform(step, session)
            for each in extra or ():
                engine.forward(session, each)
            recorder.pause()
    return recordings


def _open_machine(case: Case) -> AbstractContextManager[SimulatedMachine]:
    return open_machine(case, worker_engine(case.engine), case.devices)
