"""Every column of the stored rows, once: its name, type, unit, role, and the sentence that explains it.

A column is a field with a `Column` (`core/column.py`); those that say what a row is about are in
`core/identity_columns.py`, shared by both kinds of rows, those of memory at its highest in `core/memory_columns.py`.
The parquet schema (`store/schema.py`), the keys that tell rows apart (`core/identity.py`), the labels of tables and
docs/results.md follow from here. Sizes are integer bytes, times float seconds. None is unknown or does not apply, and
never 0. A new axis is a field of `Case`, a key of `config/settings.py` and a column here.
"""

from __future__ import annotations

from dataclasses import MISSING
from datetime import datetime
from typing import Annotated, TypedDict

from bench.core.case import Axis, Case
from bench.core.column import Column, Role, declared, names_of
from bench.core.given_columns import GivenColumns
from bench.core.identity_columns import DraftColumns, DraftModelColumns, RunColumns, ServingColumns, SizingColumns
from bench.core.memory_columns import PartColumns, PeakAllocated, Peaks, size_column
from bench.core.place_columns import PlaceColumns
from bench.core.turn_columns import TurnColumns

# 1 (first), 2 (vram_limit_by), 3 (ids that leave out what has its default).
SCHEMA_VERSION = 3


def _speed(doc: str) -> Column:
    return Column(Role.SPEED, doc, "tokens/s")


def _samples(doc: str) -> Column:
    return Column(Role.DOCUMENT, doc, "s")


class _CaseRecord(TypedDict):
    schema_version: Annotated[int, Column(Role.RECORD, "the schema that the row was written by", storage="int32")]
    run_id: Annotated[str, Column(Role.RECORD, "the sweep that it was measured in")]
    case_id: Annotated[
        str,
        Column(Role.RECORD, "a hash of what determines the measurement: the same case is found again, not run twice"),
    ]
    started_at: Annotated[datetime, Column(Role.RECORD, "UTC")]


class _Length(TypedDict):
    max_seq_len: Annotated[int, Column(Role.LENGTH, "the length that was filled", "tokens", of="max_seq_len")]


class _CaseOutcome(TypedDict):
    """How far a case came."""

    outcome: Annotated[
        str,
        Column(
            Role.OUTCOME,
            "`fits`, `oom`, `timeout`, `crash`, `unsupported`, `degraded` (the driver spilled to the host), `error`",
        ),
    ]
    phase: Annotated[str, Column(Role.OUTCOME, "the last phase entered: `load`, `cache`, `prefill`, `decode`, `done`")]


class TightestCard(TypedDict):
    """Which of several cards decides."""

    tightest_card: Annotated[
        int | None,
        Column(
            Role.OUTCOME,
            "of several cards the number (from 0) of the one that ran out of memory; else of the last, where "
            "`split=auto` fills each but the last to the brim, or the one with the least left at its peak. The sizes "
            "here are the sums over all cards, and those of each in memory.parquet "
            "([several cards](several-cards.md)); null of one card",
            storage="int32",
            later=True,
        ),
    ]


class _TightestHeadroom(TypedDict):
    tightest_headroom_bytes: Annotated[
        int | None,
        Column(Role.SIZE, "what that card had left at its peak; null of one card", "bytes", later=True),
    ]


class BestSplit(TypedDict):
    """What `split=best` came to."""

    best_split: Annotated[
        str | None,
        Column(
            Role.OUTCOME,
            "with `split=best`, the `gpu_split` that was run, as one types it: `split=[20.2,24]` runs the same again; "
            "of a boundary that of the case at `fits_at`. Null of any other split ([several cards](several-cards.md))",
            later=True,
        ),
    ]


class _CaseAnswer(TypedDict):
    """What else there is to say of a case."""

    predicted_peak_bytes: Annotated[
        int | None,
        size_column(
            "`peak_allocated_bytes` as predicted before the case was run; of a case that does not fit, what it would "
            "need ([prediction](prediction.md))"
        ),
    ]
    load_s: Annotated[float | None, Column(Role.SPEED, "loading; null on a simulated card", "s")]
    prefill_tokens_per_s: Annotated[float | None, _speed("median of the samples; null on a simulated card")]
    decode_tokens_per_s: Annotated[float | None, _speed("the same, near the start of the context")]
    decode_tokens_per_s_full: Annotated[float | None, _speed("the same, at the end of the context")]
    estimated_decode_tokens_per_s: Annotated[
        float | None,
        _speed(
            "of a simulated card, with its context full: from bytes to read and bandwidth, not a measurement "
            "([speed](speed.md))"
        ),
    ]
    wall_s: Annotated[float | None, Column(Role.OUTCOME, "from the start of the child to its end", "s")]
    decode_weights_bytes: Annotated[
        int | None,
        size_column(
            "weights that one step of decoding with the context full reads, counted from config.json "
            "([speed](speed.md)); of a case that fits"
        ),
    ]
    decode_cache_bytes: Annotated[int | None, size_column("the same of the cache")]
    prefill_samples_s: Annotated[list[float] | None, _samples("every sample of a prefill")]
    decode_samples_s: Annotated[list[float] | None, _samples("every sample of decoding near the start")]
    decode_full_samples_s: Annotated[list[float] | None, _samples("every sample of decoding at the end")]
    energy_j: Annotated[float | None, Column(Role.SPEED, "from the GPU's own counter, over the whole case", "J")]
    exit_code: Annotated[int | None, Column(Role.OUTCOME, "of the child", storage="int32")]
    signal: Annotated[int | None, Column(Role.OUTCOME, "that ended the child", storage="int32")]
    error: Annotated[str | None, Column(Role.OUTCOME, "what went wrong, in a line or two")]
    notes: Annotated[
        list[str] | None,
        Column(
            Role.OUTCOME,
            "what was assumed, and what the engine gets wrong: no causal mask in SDPA, positions or windows other than "
            "config.json describes, quantised caches of heads that are no multiple of 32, lengths that no generator "
            "takes",
        ),
    ]
    phases: Annotated[str | None, Column(Role.DOCUMENT, "JSON: seconds and memory after each phase")]
    telemetry: Annotated[
        str | None,
        Column(
            Role.DOCUMENT,
            "JSON: NVML before, during and after (total, used, reserved, processes, clocks, temperature, throttle "
            "reasons), and `properties`: what CUDA says of the card",
        ),
    ]
    environment: Annotated[str | None, Column(Role.DOCUMENT, "JSON: the child's environment")]


class CaseRow(
    _CaseRecord,
    RunColumns,
    _Length,
    SizingColumns,
    ServingColumns,
    DraftColumns,
    DraftModelColumns,
    _CaseOutcome,
    PeakAllocated,
    Peaks,
    PartColumns,
    TightestCard,
    _TightestHeadroom,
    BestSplit,
    GivenColumns,
    TurnColumns,
    _CaseAnswer,
    PlaceColumns,
):
    """One case that was run: a row of cases.parquet."""


class _BoundaryRecord(TypedDict):
    schema_version: Annotated[int, Column(Role.RECORD, "the schema that the row was written by", storage="int32")]
    run_id: Annotated[str, Column(Role.RECORD, "the sweep that found it")]
    boundary_id: Annotated[str, Column(Role.RECORD, "a hash of what determines the boundary")]
    finished_at: Annotated[datetime, Column(Role.RECORD, "UTC")]


class _SearchAxis(TypedDict):
    """Along what a boundary was searched."""

    search_axis: Annotated[
        str | None,
        Column(
            Role.LENGTH,
            "along what was searched: `max_seq_len`, or with `cache_size=auto` `cache_size`: the lengths here are "
            "then those of the cache, and certified are as many pages of it ([scenarios](scenarios.md))",
            later=True,
            before=Axis.MAX_SEQ_LEN.value,
        ),
    ]
    max_seq_len: Annotated[
        int | None,
        Column(
            Role.LENGTH,
            "where the cache was searched, the longest that a job may be; null where that was searched",
            "tokens",
            later=True,
        ),
    ]


class _BoundaryAnswer(TypedDict):
    outcome: Annotated[
        str,
        Column(
            Role.OUTCOME,
            "`fits` where `fits_at` is known; `oom` where nothing fits; else the verdict that ended the search, such "
            "as `unsupported`, `crash`, `error`, `timeout`, or `error` where the engine ended so at the length above "
            "`fits_at`",
        ),
    ]
    fits_at: Annotated[
        int | None,
        Column(
            Role.LENGTH,
            "the longest that was seen to fit; null where nothing fits or nothing is known",
            "tokens",
        ),
    ]
    fails_at: Annotated[
        int | None,
        Column(Role.LENGTH, "the shortest above it that was seen not to fit; null where there is none", "tokens"),
    ]
    predicted_fits_at: Annotated[int | None, Column(Role.LENGTH, "where the boundary was expected", "tokens")]
    searched_up_to: Annotated[
        int | None,
        Column(
            Role.LENGTH,
            "the longest length of the search: the model's own limit, unless `auto_up_to` said otherwise. A boundary "
            "there that is not that limit is a lower bound, and is not certified",
            "tokens",
        ),
    ]
    certified: Annotated[
        bool,
        Column(
            Role.OUTCOME,
            "both ends were run, and nothing lies between: `fails_at` is `fits_at` + 256 (or the model's own limit, if "
            "that is nearer); or `fits_at` is that limit; or the first 256 tokens do not fit",
        ),
    ]
    contradictory: Annotated[bool, Column(Role.OUTCOME, "a length fitted at or above one that failed")]
    probes: Annotated[int | None, Column(Role.OUTCOME, "cases that were run, or found stored, for it", storage="int32")]
    peak_device_bytes: Annotated[int | None, size_column("of the case at `fits_at`")]
    headroom_bytes: Annotated[
        int | None,
        size_column(
            "the card's limit less `peak_device_bytes`, of several cards the tightest one's; where `vram_limit_by` "
            "is `allocator`, the limit less the "
            "context it began with and PyTorch's peak"
        ),
    ]
    predicted_peak_bytes: Annotated[int | None, size_column("of the case at `fits_at`")]
    decode_tokens_per_s_full: Annotated[float | None, _speed("of the case at `fits_at`")]
    estimated_decode_tokens_per_s: Annotated[float | None, _speed("of the case at `fits_at`")]
    wall_s: Annotated[float | None, Column(Role.OUTCOME, "the search, from its first probe to its last", "s")]
    error: Annotated[str | None, Column(Role.OUTCOME, "what ended the search, in a line or two")]
    advice: Annotated[
        str | None,
        Column(
            Role.OUTCOME,
            "where nothing fits: the nearest setting that would, or what the smallest one lacks (predicted)",
        ),
    ]
    notes: Annotated[list[str] | None, Column(Role.OUTCOME, "as in a case")]
    case_ids: Annotated[list[str] | None, Column(Role.RECORD, "the cases that were run, or found stored, for it")]


class _OverAuto(TypedDict):
    predicted_auto_fits_at: Annotated[
        int | None,
        Column(
            Role.LENGTH,
            "with `split=best`, where the boundary of `split=auto` is expected (0 where nothing would fit): what lies "
            "above it is gained. Null of any other split, and where nothing is predicted",
            "tokens",
            later=True,
        ),
    ]


class BoundaryRow(
    _BoundaryRecord,
    RunColumns,
    SizingColumns,
    ServingColumns,
    DraftColumns,
    DraftModelColumns,
    TightestCard,
    BestSplit,
    _OverAuto,
    _SearchAxis,
    _BoundaryAnswer,
    PlaceColumns,
):
    """How far one setting goes: a row of boundaries.parquet."""


class _MemoryRecord(TypedDict):
    """Which card of which case, and how much of it was held."""

    schema_version: Annotated[int, Column(Role.RECORD, "the schema that the row was written by", storage="int32")]
    run_id: Annotated[str, Column(Role.RECORD, "the sweep that the case was measured in")]
    case_id: Annotated[str, Column(Role.RECORD, "the case, a row of cases.parquet of the same run")]
    card: Annotated[int, Column(Role.CARD, "the card's number, from 0, as the engine counts", storage="int32")]
    device_name: Annotated[str, Column(Role.CARD, "the card's own name")]
    device_kind: Annotated[str, Column(Role.CARD, "`cuda` or `simulated`")]
    device_uuid: Annotated[str | None, Column(Role.CARD, "null on a simulated card")]
    device_total_bytes: Annotated[int | None, size_column("as CUDA reports it")]
    vram_limit_bytes: Annotated[int | None, Column(Role.LIMIT, "the smaller card inside it, if asked for", "bytes")]
    ran_out: Annotated[bool, Column(Role.OUTCOME, "whether it was this card whose memory ended the case")]
    modules: Annotated[
        list[str] | None,
        Column(Role.OUTCOME, "the model's modules that the engine put there; null where a case did not come so far"),
    ]
    layers: Annotated[int | None, Column(Role.OUTCOME, "how many layers' keys and values are there", storage="int32")]
    peak_allocated_bytes: Annotated[
        int | None, size_column("PyTorch's memory in use, in its blocks, over the whole case")
    ]
    peak_requested_bytes: Annotated[int | None, size_column("the same as asked for, before it is rounded to blocks")]
    peak_reserved_bytes: Annotated[int | None, size_column("what PyTorch held from the driver")]
    peak_device_bytes: Annotated[int | None, size_column("what the card held, with the CUDA context")]
    headroom_bytes: Annotated[int | None, size_column("its limit less `peak_device_bytes`")]


class MemoryRow(_MemoryRecord, PartColumns):
    """One of the several cards of a case, its parts at its own peak: a row of memory.parquet."""


ResultRow = CaseRow | BoundaryRow


# What tells rows apart. Whatever groups, pairs or names rows takes its columns from here.
CARD = ("device_kind", *(name for name in names_of(CaseRow, Role.CARD) if name != "device_kind"))
LIMIT = names_of(CaseRow, Role.LIMIT)
MODEL = names_of(CaseRow, Role.MODEL)
SETTING = names_of(CaseRow, Role.SETTING)
# Those of them that the weights have, and not the run.
WEIGHTS = ("bpw", "head_bits")
# All that a row is about, but for the length.
IDENTITY = (*CARD, *LIMIT, *MODEL, *SETTING)
# Where a row was made, and with which software.
MACHINE = names_of(CaseRow, Role.MACHINE)
# What was in use at the peak, part by part.
PARTS = names_of(CaseRow, Role.PART)
# By far the most bytes of a row; no table shows them.
DOCUMENTS = frozenset(names_of(CaseRow, Role.DOCUMENT))


def usual(name: str) -> str | int | None:
    """The default of a setting; None where there is none, as of bits per weight."""
    about = next(column.about for column in declared(CaseRow) if column.name == name)
    if about.usual is not None:
        return about.usual
    field = Case.__dataclass_fields__.get(about.of)  # what is said of a part of a case is no field
    return None if field is None or field.default is MISSING else field.default


def label(name: str) -> str:
    """How a column is called where people read it: the key that a user types, where it is one."""
    return next((column.about.label for column in declared(CaseRow) if column.name == name), "") or name
