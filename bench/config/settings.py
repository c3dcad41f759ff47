"""The keys of a sweep, and the rules that one combination of them must keep.

`Settings` gives Hydra the names of the keys, and pydantic their types, units and ranges. `Allowed` says in plain words
what a key takes. What needs more than one key, or a look at the machine, is in cases.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from bench.config.allocators import allocator_name
from bench.config.units import parse_rate, parse_size, parse_tokens
from bench.core.case import (
    ALLOCATORS,
    DEFAULT_ENGINE,
    DEFAULT_SCENARIO,
    MAX_ATTENTION_SIZE,
    MAX_SEQ_LEN,
    PAGE,
    RENAMED_SCENARIOS,
    UNQUANTISED_BPW,
)
from bench.core.outcome import UNANSWERED, Outcome
from bench.core.printable import is_printable, printable
from bench.engines.registry import NAMES as ENGINES
from bench.engines.registry import bits_in_words, caches_in_words, engine_of, engines
from bench.scenarios.registry import NAMES as SCENARIOS

if TYPE_CHECKING:
    Engine = Enum
    Scenario = Enum
    Attention = Enum
    Allocator = Enum
else:
    # `auto` is the engine of the weights, and the default one where there are none.
    Engine = Enum("Engine", {name: name for name in (*ENGINES, "auto")})
    Scenario = Enum("Scenario", {name: name for name in SCENARIOS})
    # `auto` leaves the choice to the engine.
    Attention = Enum(
        "Attention", {"auto": "auto", **{name: name for engine in engines() for name in engine.attentions}}
    )
    # `auto` is what the engine has PyTorch use.
    Allocator = Enum("Allocator", {name: name for name in ("auto", *ALLOCATORS)})


def _named(choices: type[Enum], name: str) -> Any:
    return choices[name]


_ENGINE = _named(Engine, "auto")
_SCENARIO = _named(Scenario, DEFAULT_SCENARIO)
_ATTENTION = _named(Attention, "auto")
_ALLOCATOR = _named(Allocator, "auto")


class Load(Enum):
    """How a model comes to one card: loaded as a whole, or by the engine's autosplit, which the cache is made for.

    Or as a server does it, with what the server sets.
    """

    single = "single"
    autosplit = "autosplit"
    tabbyapi = "tabbyapi"


class Draft(Enum):
    """What proposes tokens to a generator: nothing, n-grams of what a job has so far, or a smaller model."""

    none = "none"
    ngram = "ngram"
    model = "model"


class LimitBy(Enum):
    """Who keeps a real card to `vram_limit`: another process that holds the rest of it, or PyTorch's allocator."""

    process = "process"
    allocator = "allocator"


UNSET = "???"  # a key that has no value, as OmegaConf writes it
MACHINE = "machine"  # the kind of a device that is several cards
# Verdicts that a case may run again for, and those for which it does where nothing is said.
_RETRIED = tuple(str(outcome) for outcome in Outcome if outcome is not Outcome.FITS)
_USUALLY_RETRIED = tuple(sorted(UNANSWERED))
ALL = "all"  # each GPU that is there
AUTO = "auto"  # the length for which the boundary is to be found

_SCENARIO_SYNONYMS = dict(RENAMED_SCENARIOS)
# What others call the engines' attention back ends.
_ATTENTION_SYNONYMS = {word: name for engine in engines() for word, name in engine.attention_synonyms.items()}
# Caches by their names in small letters.
_CACHES = {word.lower(): word for engine in engines() for word in (*engine.caches, *engine.cache_synonyms)}
_STRICT = ConfigDict(extra="forbid")
_MAX_COUNT = 1 << 20
_MAX_TURNS = 10_000
_MAX_SCORES = 1 << 40
_MAX_BYTES = 1 << 50


@dataclass(frozen=True)
class Allowed:
    """What a key takes, for the message about a value that it does not take."""

    words: str


def _verdicts(value: Any) -> Any:
    """The verdicts that a list, or one word, names."""
    words = [value] if isinstance(value, str) else value
    if words == ["none"] or words is None:
        return ()
    if not isinstance(words, list | tuple) or not all(word in _RETRIED for word in words):
        raise ValueError
    return tuple(sorted(set(words)))


def _names_of(choices: type[Enum]) -> str:
    return ", ".join(member.name for member in choices)


def _no_flag(value: Any) -> Any:
    """Refuses true and false where a number is expected: Python would take them as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError
    return value


def _member_of(enum: type[Enum], synonyms: dict[str, str] | None = None) -> Callable[[Any], Any]:
    """The member that a text names in any case, or by a synonym; anything else as it is."""
    by_name = {str(member.value).lower(): member.value for member in enum}

    def find(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name = value.strip().lower().replace("-", "_")
        return by_name.get((synonyms or {}).get(name, name), value)

    return find


def _allocator(value: Any) -> Any:
    """Its member, also of a setting as PyTorch reads it. Raises `ValueError` for what is not simulated."""
    return _member_of(Allocator)(allocator_name(value))


def _cache(value: Any) -> Any:
    """The name of a cache in any case; bits of keys and of values, 8,5 or [8,5], as k8v5. Raises `ValueError`."""
    if isinstance(value, list) and len(value) == 2:
        value = f"k{value[0]}v{value[1]}"
    if isinstance(value, int) and not isinstance(value, bool):
        axis = "a comma makes an axis: write 8,5 as k8v5 or [8,5]"
        raise ValueError(f"{value} is no cache, and {axis}; allowed are {caches_in_words()}")
    if not isinstance(value, str):
        return value
    pair = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", value)
    name = f"k{pair[1]}v{pair[2]}" if pair else value.strip()
    if name.lower() not in _CACHES:
        raise ValueError(f"allowed are {caches_in_words()}")
    return _CACHES[name.lower()]


def _size(value: Any) -> Any:
    return parse_size(value)


def _small_size(value: Any) -> Any:
    return value if value in (0, "0") and not isinstance(value, bool) else parse_size(value, is_small=True)


def _bits(value: Any) -> Any:
    """`5.0bpw`, as branches of EXL2 repositories are called, is 5.0."""
    return value.strip().lower().removesuffix("bpw") if isinstance(value, str) else _no_flag(value)


def _tokens(value: Any) -> Any:
    return parse_tokens(value) if isinstance(value, str) else _no_flag(value)


def _draft(value: Any) -> Any:
    """Nothing is None, also by its name."""
    found = _member_of(Draft)(value)
    return None if found == Draft.none.value else found


def _cache_size(value: Any) -> Any:
    """`auto` is as large as the card allows, and stays a word."""
    is_auto = isinstance(value, str) and value.strip().lower() == AUTO
    return AUTO if is_auto else _tokens(value)


def _lengths(value: Any) -> Any:
    """The lengths that have a unit as numbers; what is no length is left for cases.py to refuse."""
    if isinstance(value, list):
        return [_lengths(one) for one in value]
    try:
        return parse_tokens(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _text(value: Any) -> Any:
    """Text; a number has lost how it was written, so that a file must have it in quotes."""
    if isinstance(value, int | float):
        raise ValueError("it is text; put it in quotes in the file")
    if isinstance(value, str) and not is_printable(value):
        raise ValueError(f"{printable(value)!r} cannot be shown in a terminal or a picture; take that out of it")
    return value


def _indices(value: Any) -> Any:
    """`0+1` is two GPUs, `all` each that there is. Raises ValueError for what names none."""
    if value == ALL:
        return value
    if isinstance(value, str) and all(part.strip().isdigit() for part in value.split("+")):
        return [int(part) for part in value.split("+")]
    indices = value if isinstance(value, list) else [value]
    if not indices or any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in indices):
        raise ValueError
    return indices


def _capability(value: Any) -> Any:
    return str(value) if isinstance(value, float) else value


Text = Annotated[str, BeforeValidator(_text)]
_SIZE_IN_WORDS = Allowed("a size: 24GiB, 512MiB or in bytes")
Size = Annotated[int, BeforeValidator(_size), Field(lt=_MAX_BYTES), _SIZE_IN_WORDS]
SmallSize = Annotated[int, BeforeValidator(_small_size), Field(lt=_MAX_BYTES), _SIZE_IN_WORDS]
Count = Annotated[int, BeforeValidator(_no_flag), Field(ge=1, le=_MAX_COUNT), Allowed("a whole number from 1 on")]
Length = Annotated[
    int, BeforeValidator(_tokens), Field(ge=1, le=_MAX_COUNT), Allowed(f"tokens from 1 to {_MAX_COUNT}: 2048, or 2k")
]

CacheSize = Annotated[
    Annotated[int, Field(ge=1, le=MAX_SEQ_LEN)] | Literal["auto"],
    BeforeValidator(_cache_size),
    Allowed(f"tokens in whole pages of {PAGE}: 65536, or 64k; or auto"),
]


@dataclass
class ModelSettings:
    """One file of conf/model."""

    __pydantic_config__ = _STRICT

    name: Text = UNSET
    repo: Text | None = None
    revision: Text | None = None
    source: Text | None = None
    path: Text | None = None
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class DeviceSettings:
    """One file of conf/device. `kind` is `simulated`, `cuda`, or `auto`: the GPU that is there, if there is one.

    Of kind `machine` there is no file: its `cards` are those that a name like `2xrtx_3090` lists.
    """

    __pydantic_config__ = _STRICT

    name: Text = UNSET
    kind: Text = UNSET
    index: Annotated[
        list[Annotated[int, Field(ge=0)]] | Literal["all"],
        BeforeValidator(_indices),
        Allowed("a GPU's number from 0 on, those of several: 0+1, or all"),
    ] = field(default_factory=lambda: [0])
    full_name: Text | None = None
    total_memory_bytes: Size | None = None
    compute_capability: (
        Annotated[str, Field(pattern=r"^\d+\.\d$"), BeforeValidator(_capability), Allowed("major.minor, as in 8.6")]
        | None
    ) = None
    multi_processor_count: Count | None = None
    memory_bandwidth_bytes_per_s: Annotated[float, BeforeValidator(parse_rate)] | None = None
    context_bytes: SmallSize | None = None
    context_basis: Text | None = None
    workspace_bytes: SmallSize | None = None
    workspace_basis: Text | None = None
    first_forward_bytes: SmallSize | None = None
    first_forward_basis: Text | None = None
    sources: dict[str, Annotated[str, BeforeValidator(str)]] = field(default_factory=dict)
    cards: list[DeviceSettings] | None = None


Bits = Annotated[
    float,
    BeforeValidator(_bits),
    Field(ge=min(engine.least_bpw for engine in engines()), le=UNQUANTISED_BPW),
    Allowed(f"{bits_in_words()}, or 16 for unquantised weights"),
]
CacheName = Annotated[Any, BeforeValidator(_cache), Allowed(caches_in_words())]


@dataclass
class DraftSettings:
    """The keys `draft.model`, `draft.bpw` and `draft.cache`: Hydra knows none of them (`drafts.py`)."""

    __pydantic_config__ = _STRICT

    model: ModelSettings
    bpw: Bits = 4.0
    cache: CacheName = "FP16"


@dataclass
class Settings:
    """One combination of all keys; `max_seq_len` may still be a list, which is walked inside the search."""

    __pydantic_config__ = _STRICT

    model: ModelSettings = field(default_factory=ModelSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)
    bpw: Bits = 4.0
    engine: Annotated[Engine, BeforeValidator(_member_of(Engine)), Allowed(_names_of(Engine))] = _ENGINE
    scenario: Annotated[
        Scenario, BeforeValidator(_member_of(Scenario, _SCENARIO_SYNONYMS)), Allowed(_names_of(Scenario))
    ] = _SCENARIO
    head_bits: Annotated[int, BeforeValidator(_no_flag)] = engine_of(DEFAULT_ENGINE).default_head_bits
    max_seq_len: Annotated[Any, BeforeValidator(_lengths)] = AUTO
    auto_up_to: Annotated[Any, BeforeValidator(_lengths)] = None
    cache: CacheName = "FP16"
    load: Annotated[Load, BeforeValidator(_member_of(Load)), Allowed("single, autosplit or tabbyapi")] | None = None
    lazy: Annotated[bool, Allowed("true or false")] | None = None
    split: Any = None
    gpu_split: Any = None
    reserve_vram: Any = None
    attention: Annotated[
        Attention,
        BeforeValidator(_member_of(Attention, _ATTENTION_SYNONYMS)),
        Allowed(_names_of(Attention)),
    ] = _ATTENTION
    allocator: Annotated[Allocator, BeforeValidator(_allocator), Allowed(_names_of(Allocator))] = _ALLOCATOR
    batch_size: Count = 1
    max_input_len: Length = 2048
    cache_size: CacheSize | None = None
    max_batch_size: Count | None = None
    vision: Annotated[bool, Allowed("true or false")] = False
    turns: Annotated[
        int, BeforeValidator(_no_flag), Field(ge=1, le=_MAX_TURNS), Allowed(f"a whole number from 1 to {_MAX_TURNS:,}")
    ] = 1
    draft: Annotated[Draft | None, BeforeValidator(_draft), Allowed(_names_of(Draft))] = None
    draft_model: DraftSettings | None = None
    num_draft_tokens: Count | None = None
    max_attention_size: Annotated[
        int,
        BeforeValidator(_tokens),
        Field(ge=64, le=_MAX_SCORES),
        Allowed(f"queries x keys, from 64 to {_MAX_SCORES}"),
    ] = MAX_ATTENTION_SIZE
    vram_limit: Any = None
    vram_limit_by: Annotated[LimitBy, BeforeValidator(_member_of(LimitBy)), Allowed("process or allocator")] = (
        LimitBy.process
    )
    results_dir: Annotated[Text, AfterValidator(os.path.expanduser)] = "results"
    timeout_s: Annotated[float, BeforeValidator(_no_flag), Field(gt=0), Allowed("seconds, more than 0")] = 900.0
    phase_timeout_s: (
        Annotated[float, BeforeValidator(_no_flag), Field(gt=0), Allowed("seconds, more than 0, or null")] | None
    ) = None
    repeats: Count = 3
    jobs: Count | None = None
    allow_foreign: Annotated[bool, Allowed("true or false")] = False
    rerun: Annotated[bool, Allowed("true or false")] = False
    retry: Annotated[
        tuple[str, ...],
        BeforeValidator(_verdicts),
        Allowed(f"of {', '.join(_RETRIED)}, with commas between: the verdicts that run again; or none"),
    ] = _USUALLY_RETRIED
    run_id: (
        Annotated[
            str,
            Field(pattern=r"^\w[\w.-]*$"),
            BeforeValidator(_text),
            Allowed("letters, digits, _, . and -, as it is a folder's name"),
        ]
        | None
    ) = None
    experiment: Any = None
