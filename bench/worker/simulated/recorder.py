"""Writes down every allocation of a case while the engine runs it on a simulated card of endless size.

Recordings at different lengths are solved for the lengths (bench.trace.solve), so that any other length, bit width or
card can be answered by a replay. A deep model is recorded with a few layers: they all do the same.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from bench.allocator.caching import CachingAllocator
from bench.allocator.flash import Call
from bench.allocator.parts import PARTS
from bench.core.case import MAX_SEQ_LEN, PAGE, Case
from bench.core.messages import Entered, Message, Result
from bench.core.outcome import Phase
from bench.trace import parametric as trace
from bench.trace.parametric import ParametricTrace
from bench.trace.recording import Event, Op, Recording, Section, Size
from bench.trace.samples import extra_passes, load_lengths, whole_lengths
from bench.trace.schedule import DECODE, Pass, Setup
from bench.trace.solve import solve
from bench.trace.template import SHOWN_PERIODS
from bench.worker import scenario
from bench.worker.engine import choose_attention, read_back
from bench.worker.readable import read_config
from bench.worker.simulated import card
from bench.worker.simulated.attribution import SCRATCH, WORKSPACE
from bench.worker.simulated.tensor import Observer, SimulatedTensor

_ENDLESS_BYTES = 1 << 60
_BY_PART = {WORKSPACE: Size.WORKSPACE, SCRATCH: Size.SCRATCH}


class Recorder(CachingAllocator, Observer):
    """An allocator that never runs out, and notes everything."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(_ENDLESS_BYTES, len(PARTS))
        self.recording = recording
        self._events: list[Event] = []
        self._numbers: dict[int, int] = {}  # the number of the allocation that each live block came from
        self._count = 0
        # What the next allocations are for, and the numbers that are sorted in them.
        self._expected: list[tuple[Size, Call | None, int | None]] = []
        self._tensors: dict[str, dict[int, str]] = {}
        self._on_host: dict[
            int, tuple[torch.Tensor, str]
        ] = {}  # what was read to the host, kept so that it stays itself
        self.layer = -1

    def enter(self, q_len: int = 0, k_len: int = 0) -> None:
        """A new section begins."""
        self.recording.sections.append(Section(q_len, k_len))
        self._events = self.recording.sections[-1].events
        self.layer = -1

    def stop(self) -> None:
        """What is still freed, now or much later, is no part of the recording any more."""
        self._events = []

    def malloc(self, size_bytes: int, stream: int = 0, part: int = 0) -> int:
        row = super().malloc(size_bytes, stream, part)
        self._numbers[row] = self._count
        size, call, length = _BY_PART.get(part, Size.LENGTHS), None, None
        if self._expected:
            size, call, length = self._expected.pop(0)
        asked = size_bytes if length is None else length
        self._events.append(Event(Op.MALLOC, self._count, asked, stream, part, self.layer, size, None, call))
        self._count += 1
        return row

    def free(self, row: int) -> None:
        super().free(row)
        self._events.append(Event(Op.FREE, self._numbers.pop(row), layer=self.layer))

    def empty_cache(self) -> None:
        super().empty_cache()
        self._events.append(Event(Op.EMPTY_CACHE, layer=self.layer))

    def attention(self, call: Call, sizes: tuple[int, ...]) -> tuple[int, ...]:
        self._expected = [(size, call, None) for size in (Size.FLASH_0, Size.FLASH_1, Size.FLASH_2)]
        return tuple(max(1, size) for size in sizes)  # on another card all three may be there: keep their places

    def sort(self, length: int) -> None:
        self._expected = [(Size.SORT, None, length)]

    def weight(self, filename: str, offset: int, target: torch.Tensor) -> None:
        if filename not in self._tensors:
            self._tensors[filename] = _tensors_by_offset(Path(filename))
        name = self._tensors[filename][offset]
        if isinstance(target, SimulatedTensor):
            self._name(target, name)
        else:
            self._on_host[target.data_ptr()] = (target, name)

    def moved(self, source: torch.Tensor, target: SimulatedTensor) -> None:
        read = self._on_host.pop(source.data_ptr(), None)
        # A slice of it, or a cast one, is of a size of its own.
        if read is not None and source.dtype == target.dtype and source.shape == read[0].shape:
            self._name(target, read[1])

    def _name(self, target: SimulatedTensor, name: str) -> None:
        """The last allocation, which `target` has just been given, holds the tensor `name`."""
        if target.claim is not None:
            last = self._events[-1]
            assert last.block == self._numbers[target.claim.block]
            self._events[-1] = last._replace(size=Size.TENSOR, tensor=name)


def make_trace(case: Case, layouts: Path) -> ParametricTrace:
    """The program of `case`'s search; its own `max_seq_len` doesn't matter. Raises whatever stands in the way."""
    card.preload()
    config = read_config(case.model.config)
    setup = _setup(case, config)
    shallow, period = _shallow(case, config)
    num_layers = read_config(shallow.model.config).num_hidden_layers

    def record_at(max_seq_len: int, extra: Sequence[Pass] | None) -> Recording:
        return record(dataclasses.replace(shallow, max_seq_len=max_seq_len), layouts, extra, num_layers, period)

    recordings = [record_at(length, extra_passes(length, setup)) for length in whole_lengths(setup)]
    recordings += [record_at(length, None) for length in load_lengths(setup)]
    solved = solve(recordings, setup, config.num_hidden_layers)
    return dataclasses.replace(solved, reading=read_back(config, setup.attention).to_plain())


def save_tensor_bytes(path: Path, case: Case, layouts: Path) -> None:
    """Writes the size of every tensor of `case`'s checkpoint."""
    card.preload()
    with card.open_card(case) as simulated:
        directory = simulated.model_dir(case, layouts)
    sizes: dict[str, int] = {}
    for file in directory.glob("*.safetensors"):
        for name, entry in _header(file)[1].items():
            first, end = entry["data_offsets"]
            sizes[name] = end - first
    trace.save_tensor_bytes(path, sizes)


class _Loaded(Exception):
    """All that was to be recorded has happened."""


def record(
    case: Case, layouts: Path, extra: Sequence[Pass] | None = (), num_layers: int = 0, period: int = 1
) -> Recording:
    """Runs `case` and then the `extra` passes; where they are None, no further than to the end of loading.

    `num_layers` and `period` are put into the recording as they are.
    """
    recording = Recording(case.max_seq_len, num_layers, period)
    with card.open_card(case) as simulated:
        recorder = Recorder(recording)
        simulated.use(recorder, recorder)
        with _marked(recorder) as engine:

            def on_message(message: Message) -> None:
                match message:
                    case Entered(Phase.LOAD | Phase.CACHE):
                        recorder.enter()
                    case Entered(Phase.PREFILL) if extra is None:
                        recorder.stop()
                        raise _Loaded
                    case Result():
                        for each in extra or ():
                            engine.forward(each, case.batch_size)
                        recorder.stop()

            with suppress(_Loaded):
                scenario.run(case, simulated, layouts, on_message)
    return recording


def _setup(case: Case, config: Any) -> Setup:
    with card.open_card(case) as simulated:
        attention = choose_attention(config, case.attention, simulated)
    slides = config.arch.lm.swa or config.arch.lm.alternating_swa
    rope_limit = config.yarn_rope_original_max_position_embeddings if config.alt_rope_method == "yarn" else None
    return Setup(
        lazy=case.lazy,
        max_input_len=case.max_input_len,
        batch_size=case.batch_size,
        attention=attention,
        # Beyond the engine's default other tables may be made; what is recorded must show them.
        # A tokenizer's 10^30 for `no limit`, or 0, is no length.
        native_max_seq_len=min(max(config.max_seq_len, 2 * (rope_limit or 0), PAGE), MAX_SEQ_LEN),
        window=config.sliding_window or None if slides else None,
        rope_limit=rope_limit,
        num_experts=(config.num_experts if config.arch.lm.is_moe else None) or 1,
        experts_per_token=config.num_experts_per_token or 1,
        max_attention_size=case.max_attention_size,
    )


def _shallow(case: Case, config: Any) -> tuple[Case, int]:
    """The case with as few layers as show them all, and after how many they repeat."""
    period = 1
    if config.arch.lm.alternating_swa:  # ExLlamaV2.__init__
        period = config.sliding_window_pattern if config.sliding_window_pattern > 1 else 2
    shown = SHOWN_PERIODS * period
    fewest = shown + 1 + (config.num_hidden_layers - shown - 1) % period  # so that the last layer falls where it does
    if fewest >= config.num_hidden_layers or case.model.has_weights:
        return case, period
    model = dataclasses.replace(
        case.model,
        config=with_num_hidden_layers(case.model.config, fewest),
        fingerprint=f"{case.model.fingerprint}-{fewest}",
    )
    return dataclasses.replace(case, model=model), period


_LAYER_KEYS = ("num_hidden_layers", "n_layers", "n_layer")  # ExLlamaV2Config.prepare


def with_num_hidden_layers(config: dict[str, Any], num_layers: int) -> dict[str, Any]:
    """A config.json (parsed) of a model that is so deep."""
    shallow: dict[str, Any] = {key: num_layers if key in _LAYER_KEYS else value for key, value in config.items()}
    text_config = shallow.get("text_config")
    if isinstance(text_config, dict):
        shallow["text_config"] = with_num_hidden_layers(text_config, num_layers)
    return shallow


class _Engine:
    """The model and the cache that a case works with, as far as they have been seen."""

    model: Any = None
    cache: Any = None

    def forward(self, each: Pass, batch_size: int) -> None:
        """One pass more, as the scenario makes them."""
        self.cache.current_seq_len = each.k_len - each.q_len
        ids = torch.zeros((batch_size, each.q_len), dtype=torch.long)
        if each.phase == DECODE:
            self.model.forward(ids, self.cache, last_id_only=True).float().cpu()
        else:  # one chunk, whether the engine would split it or not
            self.model.forward_chunk(input_ids=ids, cache=self.cache, preprocess_only=True)


@contextmanager
def _marked(recorder: Recorder) -> Iterator[_Engine]:
    """While it lasts, the engine's passes and layers tell the recorder that they begin."""
    from exllamav2.model import ExLlamaV2

    make, forward_chunk = ExLlamaV2.__init__, ExLlamaV2.forward_chunk
    engine = _Engine()

    def marked_make(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        engine.model = self
        recorder.recording.scratch = _scratch(self)
        layer = -1
        for module in self.modules:
            own = getattr(module, "layer_idx", None)
            layer = own if own is not None else (-1 if layer < 0 else self.config.num_hidden_layers)
            for name in ("set_device_idx", "load", "forward"):
                setattr(module, name, _marking(getattr(module, name), recorder, layer))

    def marked_forward_chunk(self: Any, **kwargs: Any) -> Any:
        q_len = kwargs["input_ids"].shape[1]
        engine.cache = kwargs["cache"]
        recorder.enter(q_len, engine.cache.current_seq_len + q_len)
        return forward_chunk(self, **kwargs)

    with (
        mock.patch.object(ExLlamaV2, "__init__", marked_make),
        mock.patch.object(ExLlamaV2, "forward_chunk", marked_forward_chunk),
    ):
        yield engine


def _scratch(model: Any) -> list[tuple[int, int]]:
    """What each module wants of scratch, as a line over max_input_len; those that others outdo are left out."""
    config, lines = model.config, set()
    asked = config.max_input_len
    for module in model.modules[1:]:  # the embeddings stay on the host
        config.max_input_len = 0
        fixed = module.scratch_space_fixed()
        config.max_input_len = 1
        lines.add((fixed, module.scratch_space_fixed() - fixed))
    config.max_input_len = asked
    return [line for line in lines if not any(a >= line[0] and b >= line[1] and (a, b) != line for a, b in lines)]


def _marking(method: Callable[..., Any], recorder: Recorder, layer: int) -> Callable[..., Any]:
    def marked(*args: Any, **kwargs: Any) -> Any:
        recorder.layer = layer
        return method(*args, **kwargs)

    return marked


def _tensors_by_offset(path: Path) -> dict[int, str]:
    """The tensors of a safetensors file by where they begin in it."""
    body, header = _header(path)
    return {body + entry["data_offsets"][0]: name for name, entry in header.items()}


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the body of a safetensors file begins, and what is in it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return 8 + length, header
