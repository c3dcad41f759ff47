"""Every column of the stored rows, once: its name, type, unit, role, and the sentence that explains it.

The parquet schema (`store/schema.py`), the keys that tell rows apart (`core/identity.py`), the labels of tables and
docs/results.md follow from here. Sizes are integer bytes, times float seconds. None is unknown or does not apply, and
never 0. A new axis is a field of `Case`, a key of `config/settings.py` and a column here.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, NamedTuple, TypedDict, get_args, get_type_hints

from bench.core.case import DEFAULT_ENGINE, DEFAULT_SCENARIO, MAX_ATTENTION_SIZE, Case

# 1 (first), 2 (vram_limit_by), 3 (ids that leave out what has its default).
SCHEMA_VERSION = 3


class Role(StrEnum):
    """What a column has to do with the others of its row."""

    RECORD = "record"  # which row it is, of which run, and when it was made
    MACHINE = "machine"  # where it was made, and with which software
    CARD = "card"  # what the card is
    LIMIT = "limit"  # how much of the card is used, and who keeps to that
    MODEL = "model"  # what the model is: its fingerprint, as several may have one name
    SETTING = "setting"  # how the model is run: what a user can choose
    LENGTH = "length"  # tokens
    OUTCOME = "outcome"  # how it ended
    SIZE = "size"
    PART = "part"  # the size of one part, where the memory in use was highest
    SPEED = "speed"
    DOCUMENT = "document"  # a whole document, or every sample: no table shows it


@dataclass(frozen=True)
class Column:
    """What is said of a column beside its name and its Python type.

    `unit` is bytes, s, tokens/s, ...; `storage` is its type in parquet where its Python type does not decide that. `of`
    is where a `Case` has it, for the columns that tell rows apart; `usual` is a setting's default (else that of the
    field of `Case`); `simulated_only` ones describe a simulated card, and are null of a real one. A file of an older
    program may lack a column that came `later`: all of its rows had the value `before`, which is null unless there was
    only one that they could have.
    """

    role: Role
    doc: str
    unit: str = ""
    of: str = ""
    storage: str = ""
    label: str = ""
    simulated_only: bool = False
    later: bool = False
    before: int | str | None = None
    usual: str | int | None = None


def _told(doc: str, of: str, unit: str = "", storage: str = "") -> Column:
    """A column of the card that a simulated one has from its file or the command line."""
    return Column(Role.CARD, doc, unit, of, storage, simulated_only=True, later=True)


def _size(doc: str) -> Column:
    return Column(Role.SIZE, doc, "bytes")


def _part(doc: str) -> Column:
    return Column(Role.PART, doc, "bytes")


def _speed(doc: str) -> Column:
    return Column(Role.SPEED, doc, "tokens/s")


def _samples(doc: str) -> Column:
    return Column(Role.DOCUMENT, doc, "s")


class _Host(TypedDict):
    host: Annotated[str | None, Column(Role.MACHINE, "the machine's name")]


class CardColumns(TypedDict):
    """The card, and how much of it is used: `CARD` and `LIMIT`."""

    device_name: Annotated[str, Column(Role.CARD, "the card, as it was asked for", of="device.name")]
    device_kind: Annotated[str, Column(Role.CARD, "`cuda` or `simulated`: the two are never pooled", of="device.kind")]
    device_uuid: Annotated[str | None, Column(Role.CARD, "null on a simulated card", of="device.uuid")]
    device_total_bytes: Annotated[
        int | None,
        Column(
            Role.CARD,
            "as CUDA reports it; of a real card null where a case ended before CUDA was asked",
            "bytes",
            of="device.total_memory_bytes",
        ),
    ]
    vram_limit_bytes: Annotated[
        int | None,
        Column(Role.LIMIT, "the smaller card inside it, if one was asked for", "bytes", of="vram_limit_bytes"),
    ]
    vram_limit_by: Annotated[
        str | None,
        Column(
            Role.LIMIT,
            "who kept a real card small: a `process` that held the rest, or PyTorch's `allocator` "
            "([gpu-check](gpu-check.md#smaller-cards-inside-a-larger-one))",
            of="vram_limit_by",
            later=True,
        ),
    ]
    compute_capability: Annotated[str | None, Column(Role.CARD, "as CUDA reports it", of="device.compute_capability")]
    device_context_bytes: Annotated[
        int | None, _told("the CUDA context that a simulated card was told", "device.context_bytes", "bytes")
    ]
    device_workspace_bytes: Annotated[
        int | None, _told("cuBLAS's workspace that a simulated card was told", "device.workspace_bytes", "bytes")
    ]
    device_multi_processor_count: Annotated[
        int | None, _told("multiprocessors of a simulated card", "device.multi_processor_count", storage="int32")
    ]
    device_bandwidth_bytes_per_s: Annotated[
        float | None,
        _told("memory bandwidth of a simulated card", "device.memory_bandwidth_bytes_per_s", "bytes/s"),
    ]


class _Software(TypedDict):
    driver_version: Annotated[str | None, Column(Role.MACHINE, "null on a simulated card")]
    cuda_version: Annotated[str | None, Column(Role.MACHINE, "null on a simulated card")]
    torch_version: Annotated[str | None, Column(Role.MACHINE, "PyTorch's")]
    exllamav2_version: Annotated[str | None, Column(Role.MACHINE, "ExLlamaV2's, where it is the engine")]
    engine_version: Annotated[str | None, Column(Role.MACHINE, "the engine's", later=True)]
    harness_version: Annotated[str | None, Column(Role.MACHINE, "vram-bench's")]


class _ModelName(TypedDict):
    model: Annotated[str, Column(Role.MODEL, "the model's name; several may have one", of="model.name")]


class _Architecture(TypedDict):
    architecture: Annotated[str | None, Column(Role.MACHINE, "as config.json names it")]


class _Fingerprint(TypedDict):
    model_fingerprint: Annotated[
        str | None,
        Column(Role.MODEL, "changes with anything that memory depends on: it is the model", of="model.fingerprint"),
    ]


class ModelColumns(_ModelName, _Fingerprint):
    """The model: `MODEL`."""


class NativeLength(TypedDict):
    """How long a context the model has learned."""

    native_max_seq_len: Annotated[int | None, Column(Role.LENGTH, "the model's own limit", "tokens")]
    native_max_seq_len_basis: Annotated[
        str | None,
        Column(
            Role.LENGTH,
            "what tells it: `config.json`; `rope scaling`; `family` (all models of it have the same, and config.json "
            "leaves it out); or `engine default`: nothing tells it, and it is what the engine takes "
            "([lengths](#lengths))",
        ),
    ]


class _Weights(TypedDict):
    """Settings of the weights, their cache, and how they are loaded."""

    bpw: Annotated[float, Column(Role.SETTING, "bits per weight; 16 is unquantised", of="bpw")]
    head_bits: Annotated[
        int | None,
        Column(
            Role.SETTING, "bits of the head; null where the weights have their own, or none", "", "head_bits", "int32"
        ),
    ]
    cache: Annotated[str, Column(Role.SETTING, "`FP16`, `Q8`, `Q6`, `Q4`", of="cache")]
    lazy: Annotated[
        bool, Column(Role.SETTING, "a lazy cache and `load_autosplit`, or `load` and then the cache", of="lazy")
    ]


class RanAttention(TypedDict):
    """The attention back end that a case came to."""

    attention: Annotated[str | None, Column(Role.OUTCOME, "the attention that ran")]


class _Way(TypedDict):
    """What runs the model, and what is done with it."""

    engine: Annotated[
        str | None,
        Column(Role.SETTING, "what loads and runs the model", of="engine", later=True, before=DEFAULT_ENGINE),
    ]
    scenario: Annotated[
        str | None,
        Column(
            Role.SETTING,
            "what is done with it: `fill` fills the context by the engine's own forward pass and decodes",
            of="scenario",
            later=True,
            before=DEFAULT_SCENARIO,
        ),
    ]


class _AskedAttention(TypedDict):
    """The attention back end that was asked for."""

    attention_requested: Annotated[
        str | None,
        Column(
            Role.SETTING,
            "what was asked for; `auto` is the engine's choice",
            of="attention",
            label="attention",
            usual="auto",
        ),
    ]


class _Sizes(TypedDict):
    """Settings that size the passes."""

    batch_size: Annotated[int | None, Column(Role.SETTING, "sequences", of="batch_size", storage="int32", usual=1)]
    max_input_len: Annotated[
        int | None, Column(Role.SETTING, "most tokens of one chunk", "tokens", of="max_input_len", usual=2048)
    ]
    max_attention_size: Annotated[
        int | None,
        Column(
            Role.SETTING,
            "most queries × keys of one chunk, where the attention holds all scores",
            of="max_attention_size",
            later=True,
            before=MAX_ATTENTION_SIZE,
        ),
    ]


class SettingColumns(_Weights, _Way, _AskedAttention, _Sizes):
    """How the model is run: `SETTING`."""


class NamedColumns(CardColumns, ModelColumns):
    """What has a name of its own: a card and a model."""


class IdentityColumns(NamedColumns, SettingColumns):
    """All that a row is about, but for the length: `IDENTITY`."""


class MachineColumns(_Host, _Software):
    """Where something was run, and with which software."""


class _Run(
    _Host,
    CardColumns,
    _Software,
    _ModelName,
    _Architecture,
    _Fingerprint,
    NativeLength,
    _Weights,
    RanAttention,
    _Way,
    _AskedAttention,
):
    """Where something was run, and what."""


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


class PeakAllocated(TypedDict):
    """PyTorch's memory in use at its highest."""

    peak_allocated_bytes: Annotated[
        int | None, _size("PyTorch's memory in use, in its blocks, over the whole case; for an OOM: until then")
    ]


class _Peaks(TypedDict):
    """What else was at its highest."""

    peak_requested_bytes: Annotated[int | None, _size("the same as asked for, before it is rounded to blocks")]
    peak_reserved_bytes: Annotated[int | None, _size("what PyTorch held from the driver")]
    peak_device_bytes: Annotated[
        int | None,
        _size("what the card held: reserved and the CUDA context; on a real card NVML's highest reading, if higher"),
    ]


class PartColumns(TypedDict):
    """The CUDA context, and `PARTS`: what the memory in use was made of."""

    context_bytes: Annotated[int | None, _size("the CUDA context's own; on a simulated card from the catalogue")]
    weights_bytes: Annotated[
        int | None,
        _part(
            "weights; this and the parts below are those alive when the memory in use was highest "
            "([simulation](simulation.md)); on a real card only weights, cache, scratch, rope and workspace are known"
        ),
    ]
    cache_bytes: Annotated[int | None, _part("keys and values")]
    scratch_bytes: Annotated[int | None, _part("the engine's scratch space")]
    rope_bytes: Annotated[int | None, _part("sines and cosines of the positions")]
    attention_bytes: Annotated[int | None, _part("what attention holds for one pass")]
    logits_bytes: Annotated[int | None, _part("logits")]
    activations_bytes: Annotated[int | None, _part("hidden states and what MLPs hold for one pass")]
    reserve_bytes: Annotated[int | None, _part("what `load_autosplit` keeps free while it loads")]
    workspace_bytes: Annotated[int | None, _part("cuBLAS's workspaces; on a real card as they are at the end")]
    other_bytes: Annotated[int | None, _part("what belongs to none of these")]


class _CaseAnswer(TypedDict):
    """What else there is to say of a case."""

    predicted_peak_bytes: Annotated[
        int | None,
        _size(
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
        _size(
            "weights that one step of decoding with the context full reads, counted from config.json "
            "([speed](speed.md)); of a case that fits"
        ),
    ]
    decode_cache_bytes: Annotated[int | None, _size("the same of the cache")]
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


class CaseRow(_CaseRecord, _Run, _Length, _Sizes, _CaseOutcome, PeakAllocated, _Peaks, PartColumns, _CaseAnswer):
    """One case that was run: a row of cases.parquet."""


class _BoundaryRecord(TypedDict):
    schema_version: Annotated[int, Column(Role.RECORD, "the schema that the row was written by", storage="int32")]
    run_id: Annotated[str, Column(Role.RECORD, "the sweep that found it")]
    boundary_id: Annotated[str, Column(Role.RECORD, "a hash of what determines the boundary")]
    finished_at: Annotated[datetime, Column(Role.RECORD, "UTC")]


class _BoundaryAnswer(TypedDict):
    outcome: Annotated[
        str,
        Column(
            Role.OUTCOME,
            "`fits` where `fits_at` is known; `oom` where nothing fits; else the verdict that ended the search, such "
            "as `unsupported`, `crash`, `error`, `timeout`",
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
        Column(Role.LENGTH, "the shortest above it that was seen to fail; null where nothing failed", "tokens"),
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
    peak_device_bytes: Annotated[int | None, _size("of the case at `fits_at`")]
    headroom_bytes: Annotated[
        int | None,
        _size(
            "the card's limit less `peak_device_bytes`; where `vram_limit_by` is `allocator`, the limit less the "
            "context it began with and PyTorch's peak"
        ),
    ]
    predicted_peak_bytes: Annotated[int | None, _size("of the case at `fits_at`")]
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


class BoundaryRow(_BoundaryRecord, _Run, _Sizes, _BoundaryAnswer):
    """How far one setting goes: a row of boundaries.parquet."""


ResultRow = CaseRow | BoundaryRow


class Declared(NamedTuple):
    """A column as it is declared: its name, its Python type without None, whether it may be null, and the rest."""

    name: str
    type: Any
    nullable: bool
    about: Column


@cache
def declared(row: type) -> tuple[Declared, ...]:
    """The columns of `CaseRow` or `BoundaryRow`, in their order."""
    hints = get_type_hints(row, include_extras=True)
    found = []
    for name in row.__annotations__:
        annotated, about = get_args(hints[name])
        nullable = type(None) in get_args(annotated)
        plain = next(each for each in get_args(annotated) if each is not type(None)) if nullable else annotated
        found.append(Declared(name, plain, nullable, about))
    return tuple(found)


def _of(row: type, *roles: Role) -> tuple[str, ...]:
    return tuple(column.name for column in declared(row) if column.about.role in roles)


# What tells rows apart. Whatever groups, pairs or names rows takes its columns from here.
CARD = ("device_kind", *(name for name in _of(CaseRow, Role.CARD) if name != "device_kind"))
LIMIT = _of(CaseRow, Role.LIMIT)
MODEL = _of(CaseRow, Role.MODEL)
SETTING = _of(CaseRow, Role.SETTING)
# Those of them that the weights have, and not the run.
WEIGHTS = ("bpw", "head_bits")
# All that a row is about, but for the length.
IDENTITY = (*CARD, *LIMIT, *MODEL, *SETTING)
# Where a row was made, and with which software.
MACHINE = _of(CaseRow, Role.MACHINE)
# What was in use at the peak, part by part.
PARTS = _of(CaseRow, Role.PART)
# By far the most bytes of a row; no table shows them.
DOCUMENTS = frozenset(_of(CaseRow, Role.DOCUMENT))


def usual(name: str) -> str | int | None:
    """The default of a setting; None where there is none, as of bits per weight."""
    about = next(column.about for column in declared(CaseRow) if column.name == name)
    default = Case.__dataclass_fields__[about.of].default if about.usual is None else about.usual
    return None if default is MISSING else default


def label(name: str) -> str:
    """How a column is called where people read it: the key that a user types, where it is one."""
    return next((column.about.label for column in declared(CaseRow) if column.name == name), "") or name
