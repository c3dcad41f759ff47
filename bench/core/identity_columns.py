"""The columns that say what a row is about and where it was made: card, limit, model, settings, machine, software."""

from __future__ import annotations

from typing import Annotated, TypedDict

from bench.core.case import DEFAULT_ENGINE, DEFAULT_SCENARIO, MAX_ATTENTION_SIZE, NATIVE, RENAMED_SCENARIOS
from bench.core.column import Column, Role


def _told(doc: str, of: str, unit: str = "", storage: str = "") -> Column:
    """A column of the card that a simulated one has from its file or the command line."""
    return Column(Role.CARD, doc, unit, of, storage, simulated_only=True, later=True)


class _Host(TypedDict):
    host: Annotated[str | None, Column(Role.MACHINE, "the machine's name")]


class CardColumns(TypedDict):
    """The card, and how much of it is used: `CARD` and `LIMIT`."""

    device_name: Annotated[
        str,
        Column(
            Role.CARD,
            "the card, as it was asked for; of several `2xrtx_3090`, or `rtx_4090+rtx_3060_12gb`",
            of="machine.name",
        ),
    ]
    device_kind: Annotated[str, Column(Role.CARD, "`cuda` or `simulated`: the two are never pooled", of="machine.kind")]
    device_uuid: Annotated[str | None, Column(Role.CARD, "null on a simulated card", of="machine.uuid")]
    device_total_bytes: Annotated[
        int | None,
        Column(
            Role.CARD,
            "as CUDA reports it, of several cards the sum; of a real one null where a case ended before CUDA was asked",
            "bytes",
            of="machine.total_memory_bytes",
        ),
    ]
    vram_limit_bytes: Annotated[
        int | None,
        Column(
            Role.LIMIT,
            "the smaller card inside it, if one was asked for; of several cards the sum",
            "bytes",
            of="limit_bytes",
        ),
    ]
    vram_limits: Annotated[
        str | None,
        Column(
            Role.LIMIT,
            "JSON: the smaller card inside each of several, in bytes, null for a whole one; null where all have the "
            "same limit",
            of="unequal_limits",
            later=True,
        ),
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
    compute_capability: Annotated[str | None, Column(Role.CARD, "as CUDA reports it", of="machine.compute_capability")]
    device_context_bytes: Annotated[
        int | None, _told("the CUDA context that a simulated card was told", "machine.context_bytes", "bytes")
    ]
    device_workspace_bytes: Annotated[
        int | None, _told("cuBLAS's workspace that a simulated card was told", "machine.workspace_bytes", "bytes")
    ]
    device_multi_processor_count: Annotated[
        int | None, _told("multiprocessors of a simulated card", "machine.multi_processor_count", storage="int32")
    ]
    device_bandwidth_bytes_per_s: Annotated[
        float | None,
        _told("memory bandwidth of a simulated card", "machine.memory_bandwidth_bytes_per_s", "bytes/s"),
    ]
    device_cards: Annotated[
        str | None,
        Column(
            Role.CARD,
            "JSON: what each card is, where there are several ([several cards](several-cards.md)); null of one",
            of="machine.cards",
            later=True,
        ),
    ]


class _Software(TypedDict):
    driver_version: Annotated[str | None, Column(Role.MACHINE, "null on a simulated card")]
    cuda_version: Annotated[str | None, Column(Role.MACHINE, "null on a simulated card")]
    torch_version: Annotated[str | None, Column(Role.MACHINE, "PyTorch's")]
    exllamav2_version: Annotated[str | None, Column(Role.MACHINE, "ExLlamaV2's, where it is the engine")]
    exllamav3_version: Annotated[str | None, Column(Role.MACHINE, "exllamav3's, where it is the engine", later=True)]
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
    cache: Annotated[
        str,
        Column(Role.SETTING, "`FP16`, `Q8`, `Q6`, `Q4`, or the bits of keys and of values: `k8v5`", of="cache"),
    ]
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
            "what is done with it: `forward` fills the context by the engine's own forward pass and decodes; "
            "`generator` has the engine's generator work off jobs ([scenarios](scenarios.md)). Older programs wrote "
            "`fill` for `forward`",
            of="scenario",
            later=True,
            before=DEFAULT_SCENARIO,
            renamed=RENAMED_SCENARIOS,
        ),
    ]
    split: Annotated[
        str | None,
        Column(
            Role.SETTING,
            "how the model is put on several cards: `auto`, `gpu_split(20,24)` (GiB), `tensor_parallel`; null of one",
            of="split",
            later=True,
        ),
    ]
    allocator: Annotated[
        str | None,
        Column(
            Role.SETTING,
            "PyTorch's allocator: `native` segments, or `expandable` ones "
            "([simulation](simulation.md#expandable-segments))",
            of="allocator",
            later=True,
            before=NATIVE,
        ),
    ]
    vision: Annotated[
        bool | None,
        Column(
            Role.SETTING,
            "whether the model's vision tower is loaded beside it ([vision](vision.md))",
            of="vision",
            later=True,
            before=False,
        ),
    ]
    turns: Annotated[
        int | None,
        Column(
            Role.SETTING,
            "how many contexts are filled and decoded from, one after the other, each of another length "
            "([scenarios](scenarios.md#turns))",
            of="turns",
            storage="int32",
            later=True,
            before=1,
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


class SizingColumns(TypedDict):
    """Settings that size the passes."""

    batch_size: Annotated[
        int | None, Column(Role.SETTING, "sequences, or jobs at a time", of="batch_size", storage="int32", usual=1)
    ]
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


class ServingColumns(TypedDict):
    """Settings of a generator, and the server that has it."""

    cache_size: Annotated[
        int | None,
        Column(
            Role.SETTING,
            "with `scenario=generator`, the tokens of the cache that all jobs share; null: `max_seq_len` for each job",
            "tokens",
            of="cache_size",
            later=True,
        ),
    ]
    max_batch_size: Annotated[
        int | None,
        Column(
            Role.SETTING,
            "with `scenario=generator`, how many jobs it takes at a time at most; null: the engine's default",
            of="max_batch_size",
            storage="int32",
            later=True,
        ),
    ]
    load_as: Annotated[
        str | None,
        Column(
            Role.SETTING,
            "the server that it is set and loaded as: `tabbyapi` ([what it sets](scenarios.md#loaded-as-tabbyapi)); "
            "null: by the engine's own `load` or `load_autosplit`",
            of="load_as",
            label="load",
            later=True,
        ),
    ]


class DraftColumns(TypedDict):
    """What proposes tokens to a generator."""

    draft: Annotated[
        str | None,
        Column(
            Role.SETTING,
            "with `scenario=generator`, what proposes tokens: `ngram`, n-grams of what a job has so far; `model`, a "
            "smaller model beside it; null: nothing",
            of="draft",
            later=True,
        ),
    ]
    num_draft_tokens: Annotated[
        int | None,
        Column(
            Role.SETTING,
            "how many tokens are proposed for each that a job gets; null where nothing proposes any",
            "tokens",
            "num_draft_tokens",
            "int32",
            later=True,
        ),
    ]


class DraftModelColumns(TypedDict):
    """The model that proposes tokens to a generator."""

    draft_model: Annotated[
        str | None,
        Column(
            Role.SETTING,
            "with `draft=model`, the name of the model that proposes tokens",
            of="draft_name",
            label="draft.model",
            later=True,
        ),
    ]
    draft_fingerprint: Annotated[
        str | None,
        Column(
            Role.SETTING,
            "the same of it as `model_fingerprint` of the model",
            of="draft_fingerprint",
            later=True,
        ),
    ]
    draft_bpw: Annotated[
        float | None,
        Column(Role.SETTING, "bits per weight of the draft model", of="draft_bpw", label="draft.bpw", later=True),
    ]
    draft_cache: Annotated[
        str | None,
        Column(Role.SETTING, "the type of its cache", of="draft_cache", label="draft.cache", later=True),
    ]


class SettingColumns(_Weights, _Way, _AskedAttention, SizingColumns, ServingColumns, DraftColumns, DraftModelColumns):
    """How the model is run: `SETTING`."""


class NamedColumns(CardColumns, ModelColumns):
    """What has a name of its own: a card and a model."""


class IdentityColumns(NamedColumns, SettingColumns):
    """All that a row is about, but for the length: `IDENTITY`."""


class MachineColumns(_Host, _Software):
    """Where something was run, and with which software."""


class RunColumns(
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
