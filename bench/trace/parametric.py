"""A case's allocations for any length, bit width and depth: what recordings are solved to, and how it is kept.

An example. A model was recorded with five layers, each of which allocates its output and frees that of the one before:

>>> recorded = np.zeros((10, NUM_COLUMNS), np.int64)  # two events a layer, here with their layer and block alone
>>> recorded[:, LAYER] = np.repeat(range(5), 2)
>>> recorded[::2, BLOCK] = range(0, 10, 2)  # the event that allocates a block gives it its number
>>> recorded[3::2, BLOCK] = range(0, 8, 2)  # the second event of layer i frees the block of layer i - 1
>>> deep = deepen(recorded, num_layers=5, period=1, depth=7)

The model has seven: a layer is repeated twice, and each layer still frees the block of the one before it.

>>> deep[:, LAYER].tolist()
[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
>>> deep[1::2, BLOCK].tolist()
[0, 0, 2, 4, 6, 8, 10]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.core.files import replaced
from bench.trace.layers import Layers, layers_of
from bench.trace.passes import NoPrediction, Pass, Setup
from bench.trace.recording import Op, Size
from bench.trace.template import (
    BATCH,
    BLOCK,
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    LAYER,
    NUM_COLUMNS,
    OP,
    Q_TERMS,
    SHOWN_PERIODS,
    SIZE_RULE,
    TENSOR,
    WINDOW,
    Array,
    spans_of_layers,
    terms,
)

DRAFT = "draft:"  # begins the names of a draft model's tensors


def save_tensor_bytes(path: Path, sizes: Mapping[str, int]) -> None:
    """Writes the sizes of a checkpoint's tensors by name, and their sum, by which a changed file is refused."""
    with replaced(path) as partial:
        partial.write_text(json.dumps({"tensors": sizes, "total_bytes": sum(sizes.values())}))


def load_tensor_bytes(path: Path) -> dict[str, int]:
    """Raises `NoPrediction` where that is what was kept, and ValueError where it was changed since."""
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "reason" in about:
        raise NoPrediction(about["reason"])
    sizes = dict(about["tensors"])
    if sum(sizes.values()) != about["total_bytes"]:
        raise ValueError(f"the tensors in {path.name} do not add up")
    return sizes


def with_draft(sizes: Mapping[str, int], drafts: Mapping[str, int]) -> dict[str, int]:
    """The sizes of a checkpoint's tensors with those of a draft model's, by the names that a trace has for them."""
    return {**sizes, **{f"{DRAFT}{name}": size for name, size in drafts.items()}}


def save_reason(path: Path, reason: str) -> None:
    """Keeps, in the place of a trace or of tensors' sizes, why there is none."""
    about = {"reason": reason}
    with replaced(path) as partial, partial.open("wb") as file:
        if path.suffix == ".json":
            file.write(json.dumps(about).encode())
        else:
            np.savez_compressed(file, about=np.array(json.dumps(about)))


def save_arrays(path: Path, about: dict[str, Any], arrays: Mapping[str, Array]) -> None:
    """Writes a trace; it appears whole or not at all."""
    with replaced(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Raises `NoPrediction` where a reason is what was kept, and OSError where nothing was."""
    with np.load(path, allow_pickle=False) as file:
        about: dict[str, Any] = json.loads(str(file["about"]))
        arrays = {name: file[name] for name in file.files if name != "about"}
    if "reason" in about:
        raise NoPrediction(about["reason"])
    return about, arrays


class Sections(NamedTuple):
    """Every section of a case: phases, kinds (keys of `ParametricTrace.templates`), `terms` [sections, NUM_TERMS]."""

    phases: list[str]
    kinds: Array
    terms: Array


@dataclass(frozen=True)
class ParametricTrace:
    """`templates` by kind of section, each [events, NUM_COLUMNS]; an event's BLOCK is the index of its allocation.

    `null_space` by kind are the rows r with `r · terms == 0` for all lengths that were recorded: of lengths for which
    one does not hold, nothing is known. `refused` has the kinds that were recorded and follow no rule that is known,
    and why. `tensors` are the names that TENSOR indexes, with `{}` for the layer. The templates have `num_layers`
    layers, of which the last whole `period` repeats; `depth` is how many the model has. With a draft model, whose
    tensors have names that begin with `DRAFT`, those of both have as many as the deeper one, and layers that a model
    lacks are empty. `scratch` and `draft_scratch` are as in `Recording`, `reading` is what the engine made of
    config.json (`engines.reading`), in plain values.
    """

    templates: dict[str, Array]
    null_space: dict[str, list[list[int]]]
    refused: dict[str, str]
    tensors: list[str]
    num_layers: int
    period: int
    depth: int
    setup: Setup
    scratch: list[list[int]]
    reading: dict[str, Any] | None = None
    draft_scratch: list[list[int]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Writes the trace; it appears whole or not at all."""
        save_arrays(path, self.about(), self.templates)

    def about(self) -> dict[str, Any]:
        """All but the templates, as plain data."""
        about = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "templates"}
        return {**about, "setup": self.setup.to_plain()}

    @staticmethod
    def load(path: Path, make_setup: Callable[..., Setup]) -> ParametricTrace:
        """`make_setup` is called with what the engine's `Setup.to_plain` gave, by name.

        Raises `NoPrediction` where that is what was kept, and OSError where nothing was.
        """
        return ParametricTrace.of(*load_arrays(path), make_setup)

    @staticmethod
    def of(about: dict[str, Any], templates: dict[str, Array], make_setup: Callable[..., Setup]) -> ParametricTrace:
        """From what `about` gave, and the templates."""
        return ParametricTrace(templates=templates, **{**about, "setup": make_setup(**about["setup"])})

    def passes(self, max_seq_len: int) -> list[Pass]:
        """The sections of a case of that length, in order; raises `NoPrediction` where one was never recorded."""
        self.sections(max_seq_len)
        return self.setup.schedule(max_seq_len).passes()

    def sections(self, max_seq_len: int) -> Sections:
        """The same in arrays. Raises `NoPrediction`."""
        schedule = self.setup.schedule(max_seq_len)
        if schedule.endless is not None:
            raise NoPrediction(schedule.endless)
        names = list(self.templates)
        for each in schedule.distinct:
            self._require_known(each)
        kinds = np.array([names.index(each.kind) for each in schedule.distinct], np.int64)
        phases = [each.phase for each in schedule.distinct]
        sections = Sections(
            phases=[phases[index] for index in schedule.which.tolist()],
            kinds=kinds[schedule.which],
            terms=terms(schedule.lengths[:, 0], schedule.lengths[:, 1], *self.setup.lengths_at(max_seq_len)),
        )
        self._require_determined(sections)
        return sections

    def _require_known(self, each: Pass) -> None:
        if each.kind in self.refused:
            raise NoPrediction(self.refused[each.kind])
        if each.kind not in self.templates:
            raise NoPrediction(f"no recording shows {self.setup.in_words(each)}")

    def _require_determined(self, sections: Sections) -> None:
        """Of lengths for which a relation does not hold, the recordings leave open what is taken."""
        for index, kind in enumerate(self.templates):
            if null_space := self.null_space[kind]:
                which = np.flatnonzero(sections.kinds == index)
                broken = np.any(sections.terms[which] @ np.array(null_space, np.int64).T != 0, axis=1)
                if broken.any():
                    first = int(which[np.flatnonzero(broken)[0]])
                    _, _, k_len, q_len = (int(value) for value in sections.terms[first, :4])
                    each = Pass(sections.phases[first], kind, q_len, k_len)
                    raise NoPrediction(f"the recordings leave open what is taken by {self.setup.in_words(each)}")

    def scratch_bytes(self, max_seq_len: int) -> int:
        """The one scratch buffer of the device, for the model."""
        return self._scratch_bytes(self.scratch, max_seq_len)

    def draft_scratch_bytes(self, max_seq_len: int) -> int:
        """That for its draft model."""
        return self._scratch_bytes(self.draft_scratch, max_seq_len)

    def _scratch_bytes(self, lines: list[list[int]], max_seq_len: int) -> int:
        longest = self.setup.longest_chunk(max_seq_len)
        return max((a + b * longest for a, b in lines), default=0) // 2 * 2

    def within(self, cache_size: int | None, max_seq_len: int | None = None, turns: int = 1) -> ParametricTrace:
        """The same for jobs that share a cache of so many tokens, or by the length of the cache at a `max_seq_len`."""
        return replace(self, setup=self.setup.within(cache_size, max_seq_len, turns))

    def deepened(self) -> ParametricTrace:
        """The same with every layer of the model spelled out."""
        if self.depth == self.num_layers:
            return self
        templates = {kind: deepen(t, self.num_layers, self.period, self.depth) for kind, t in self.templates.items()}
        return replace(self, templates=templates, num_layers=self.depth)

    @cached_property
    def tensor_names(self) -> list[tuple[int, int, str]]:
        """Each (TENSOR, layer) that occurs, and the name of the tensor in the checkpoint."""
        pairs = np.unique(
            np.concatenate([t[t[:, SIZE_RULE] == Size.TENSOR][:, [TENSOR, LAYER]] for t in self.templates.values()]),
            axis=0,
        )
        return [(int(index), int(layer), self.tensors[index].format(layer)) for index, layer in pairs]

    @cached_property
    def all_events(self) -> tuple[Array, Array]:
        """The events of all kinds of sections, and where those of each kind begin."""
        return concatenated(self.templates.values())

    @cached_property
    def layers(self) -> Layers:
        """Which layers do the same, of a trace with every layer spelled out."""
        return layers_of(self.templates.values(), self.num_layers, self.period)

    @cached_property
    def flash_calls(self) -> tuple[Array, Array]:
        """The same, of events whose size follows from the kind of card: one of each sort."""
        return concatenated(_flash_calls(template) for template in self.templates.values())


def concatenated(templates: Iterable[Array]) -> tuple[Array, Array]:
    """The events of several templates, and where those of each begin."""
    together = list(templates)
    starts = np.cumsum([0, *map(len, together)]).astype(np.int64)
    return np.ascontiguousarray(np.concatenate(together)), starts


def _flash_calls(template: Array) -> Array:
    calls = template[template[:, SIZE_RULE] >= Size.FLASH_0]
    shapes = calls[:, [SIZE_RULE, BATCH, HEADS, HEAD_DIM, KV_HEADS, WINDOW, *range(Q_TERMS, NUM_COLUMNS)]]
    return calls[np.unique(shapes, axis=0, return_index=True)[1]]


def deepen(template: Array, num_layers: int, period: int, depth: int) -> Array:
    """Repeats the last period of layers that is shown until there are `depth`, or leaves out those before the last.

    Raises `NoPrediction` where what is left out is needed.
    """
    spans = spans_of_layers(template, num_layers)
    if depth < num_layers:
        if depth < 2:
            raise NoPrediction(f"no recording shows a card with {depth} whole layers, among them the last")
        sources = [*range(-1, depth - 1), num_layers - 1, num_layers]
    else:
        shown = SHOWN_PERIODS * period
        sources = [*range(-1, shown), *(shown - period + i % period for i in range(depth - num_layers))]
        sources += range(shown, num_layers + 1)
    starts = np.cumsum([0] + [spans[source + 1][1] - spans[source + 1][0] for source in sources])
    parts = []
    kept = np.concatenate([np.arange(*spans[source + 1]) for source in sources])
    for layer, source in enumerate(sources, start=-1):
        part = template[slice(*spans[source + 1])].copy()
        part[:, LAYER] = layer
        maker = template[part[:, BLOCK], LAYER]  # the recorded layer whose allocation each event is about
        # Blocks made up to two periods back are shifted along with the layer; older ones are shared by all layers.
        near = (maker >= 0) & (source - maker <= 2 * period)
        if depth < num_layers and (np.any(near & (maker + layer < source)) or np.any(~near & (maker > depth - 2))):
            raise NoPrediction(f"no recording shows a card with {depth} whole layers")
        first = np.array([span[0] for span in spans])[maker + 1]
        part[:, BLOCK] += starts[np.where(near, maker + layer - source, maker) + 1] - first
        parts.append(part)
    deep = np.concatenate(parts)
    if depth < num_layers:
        _require_same_blocks(template, kept, deep)
    return deep


def _require_same_blocks(template: Array, kept: Array, short: Array) -> None:
    """Raises `NoPrediction` unless what is freed without some layers is what was, and is all that was."""
    freed, was_freed = short[short[:, OP] == Op.FREE, BLOCK], template[template[:, OP] == Op.FREE, BLOCK]
    meant = template[kept[short[:, OP] == Op.FREE], BLOCK]
    columns = [column for column in range(NUM_COLUMNS) if column not in (BLOCK, LAYER, TENSOR)]
    if not np.array_equal(short[freed][:, columns], template[meant][:, columns]) or not np.array_equal(
        np.sort(freed), np.flatnonzero(np.isin(kept, was_freed))
    ):
        raise NoPrediction("no recording shows a card with so few whole layers, among them the last")
