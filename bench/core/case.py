"""What determines a measurement: the model, the card, and how the model is run on it.

Sizes are integer bytes. None means unknown, never 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bench.core import wire
from bench.core.device import DeviceSpec
from bench.core.machine import Machine

MAX_ATTENTION_SIZE = 2048**2  # queries times keys, unless one sets it
MAX_SEQ_LEN = 1 << 24  # tokens; the longest context that any published model claims has 10,485,760 (Llama 4 Scout)
UNQUANTISED_BPW = 16.0
PAGE = 256  # tokens, as the engines' own generators count the cache: the step of a boundary
DEFAULT_ENGINE = "exllamav2"
DEFAULT_SCENARIO = "forward"
RENAMED_SCENARIOS = (("fill", "forward"),)  # as older programs called them in their rows
NATIVE, EXPANDABLE = ALLOCATORS = ("native", "expandable")  # segments of PyTorch's allocator
_SORTED_JSON = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True)
class ModelSpec:
    """A model as the engine will see it: `config` is its config.json, `path` a directory that holds it (and, for a
    real card, its EXL2 weights), `fingerprint` changes with anything that memory depends on. `bpw` is that of the
    weights in `path`, None where there are none. A model of a hub has its `repo` and the commit (`revision`); the
    weights in its `path` have no body until they are downloaded.
    """

    name: str
    config: dict[str, Any] = field(hash=False)  # no dict has a hash; equal models have the same fingerprint
    fingerprint: str
    path: str | None = None
    bpw: float | None = None
    repo: str | None = None
    revision: str | None = None

    @property
    def has_weights(self) -> bool:
        """Whether there are weights: of a catalogue's model there are none."""
        return self.bpw is not None

    @property
    def architecture(self) -> str | None:
        """The first that config.json names; None where it names none."""
        architectures = self.config.get("architectures")
        return str(architectures[0]) if isinstance(architectures, list) and architectures else None


@dataclass(frozen=True)
class DraftModel:
    """A model that proposes tokens to the generator of another: its weights, and the cache that it has of its own."""

    model: ModelSpec
    bpw: float
    head_bits: int | None
    cache: str

    @property
    def identity(self) -> list[Any]:
        """What memory depends on."""
        return [self.model.name, self.model.fingerprint, self.bpw, self.head_bits, self.cache]


def version_column(engine: str) -> str:
    """Where rows keep the version of an engine of that name, and of no other."""
    return f"{engine}_version"


@dataclass(frozen=True)
class Case:
    """One measurement to make: everything that determines it, and nothing else.

    `vram_limit_by` says who keeps a real card to `vram_limit_bytes`: a `process` that holds the rest of it, or
    PyTorch's `allocator`. None for a simulated card, which simply has that size. On several cards the limit is that of
    each, or else `vram_limits_bytes` says it of each (None: the whole card); `device` is the first of them,
    `more_devices` the others, and `split` the text of a `Split`. `allocator` is one of `ALLOCATORS`.

    Of a scenario with the engine's generator `batch_size` are its jobs, which share a cache of `cache_size` tokens
    (None: `max_seq_len` for each of them); `max_batch_size` is how many it takes at once, None the engine's default.
    `draft` says what proposes `num_draft_tokens` tokens for each that a job gets; None where nothing does. If it is a
    model, that is the `draft_model`. `load_as` names the server whose settings and order of loading are kept to; None
    for the engine's own. `vision` says whether the model's vision tower is loaded beside it.
    `turns` are how often a context is filled and decoded from, the first time as without them.
    """

    model: ModelSpec
    device: DeviceSpec
    bpw: float
    head_bits: int | None
    cache: str
    lazy: bool
    attention: str
    max_seq_len: int
    batch_size: int
    max_input_len: int
    vram_limit_bytes: int | None = None
    vram_limit_by: str | None = None
    repeats: int = 3
    max_attention_size: int = MAX_ATTENTION_SIZE
    engine: str = DEFAULT_ENGINE
    scenario: str = DEFAULT_SCENARIO
    more_devices: tuple[DeviceSpec, ...] = ()
    split: str | None = None
    allocator: str = NATIVE
    vram_limits_bytes: tuple[int | None, ...] | None = None
    cache_size: int | None = None
    max_batch_size: int | None = None
    draft: str | None = None
    num_draft_tokens: int | None = None
    draft_model: DraftModel | None = None
    load_as: str | None = None
    vision: bool = False
    turns: int = 1

    @property
    def longest(self) -> Case:
        """Itself; of a `Search`, its case where the search ends."""
        return self

    @property
    def axis(self) -> Axis:
        """Along what it is replayed: its own length."""
        return Axis.MAX_SEQ_LEN

    @property
    def length(self) -> int:
        """How far along its axis it is, in tokens."""
        return self.max_seq_len

    @property
    def cache_tokens(self) -> int:
        """How many tokens its cache has room for, of all sequences or jobs together."""
        return self.cache_size or self.max_seq_len * self.batch_size

    @property
    def of_draft(self) -> Case | None:
        """Its draft model, loaded in its way and with a cache as long as its own, as a case of its own."""
        if self.draft_model is None:
            return None
        own = vars(self.draft_model)
        alone: dict[str, Any] = {"draft": None, "num_draft_tokens": None, "draft_model": None}
        return dataclasses.replace(self, **own, **alone, load_as=None, vision=False, turns=1)

    @property
    def draft_name(self) -> str | None:
        """What its draft model is called."""
        return None if self.draft_model is None else self.draft_model.model.name

    @property
    def draft_fingerprint(self) -> str | None:
        """The fingerprint of its draft model."""
        return None if self.draft_model is None else self.draft_model.model.fingerprint

    @property
    def draft_bpw(self) -> float | None:
        """Bits per weight of its draft model."""
        return None if self.draft_model is None else self.draft_model.bpw

    @property
    def draft_cache(self) -> str | None:
        """The type of its draft model's cache."""
        return None if self.draft_model is None else self.draft_model.cache

    @property
    def odd_tokens(self) -> int:
        """How many tokens the longest of a generator's jobs has beyond whole pages."""
        return 0 if self.scenario == DEFAULT_SCENARIO else self.max_seq_len % PAGE

    @property
    def devices(self) -> tuple[DeviceSpec, ...]:
        """The cards that it runs on, in the engine's order."""
        return (self.device, *self.more_devices)

    @property
    def machine(self) -> DeviceSpec | Machine:
        """The cards as one: the card itself, where there is only one."""
        return Machine(self.devices) if self.more_devices else self.device

    @property
    def limits_bytes(self) -> tuple[int | None, ...]:
        """How much of each card is used; None where it is all of it."""
        return self.vram_limits_bytes or (self.vram_limit_bytes,) * len(self.devices)

    @property
    def limit_bytes(self) -> int | None:
        """How much is used of all cards together; None where it is all of them."""
        if all(limit is None for limit in self.limits_bytes):
            return None
        return sum(
            device.total_memory_bytes if limit is None else limit
            for device, limit in zip(self.devices, self.limits_bytes, strict=True)
        )

    @property
    def unequal_limits(self) -> str | None:
        """JSON: `limits_bytes`, where they are not the same for all cards."""
        return None if self.vram_limits_bytes is None else json.dumps(self.vram_limits_bytes)

    @property
    def _software(self) -> tuple[str, ...]:
        """The versions that it depends on: another engine that is installed beside its own changes nothing."""
        return ("harness_version", "torch_version", version_column(self.engine))

    def case_id(self, versions: dict[str, str | None]) -> str:
        """A hash of the configuration, the card and the versions: the same case is found again on resume.

        What has its default is left out, so that a field that is added later changes no id of the cases before it.
        """
        told = {f.name: value for f in dataclasses.fields(self) if (value := getattr(self, f.name)) != f.default}
        if self.more_devices:
            told["more_devices"] = [device.identity for device in self.more_devices]
        if self.draft_model is not None:
            told["draft_model"] = self.draft_model.identity
        determining = {
            **told,
            "model": [self.model.name, self.model.fingerprint],
            "device": self.device.identity,
            "versions": {name: versions[name] for name in versions if name in self._software},
        }
        text = _SORTED_JSON.encode(determining)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def needs_download(self) -> bool:
        """Whether it reads weights that are on a hub, of which only the headers were fetched so far."""
        models = [self.model, *([] if self.draft_model is None else [self.draft_model.model])]
        return not self.device.is_simulated and any(model.repo is not None for model in models)

    @staticmethod
    def from_json(text: str) -> Case:
        """Reads what `to_json` has written, also in an older program."""
        case = wire.from_json(Case, text)
        return dataclasses.replace(case, scenario=dict(RENAMED_SCENARIOS).get(case.scenario, case.scenario))

    def to_json(self) -> str:
        """The case as JSON, for the child and for Hydra's jobs."""
        return wire.to_json(self)


class Axis(StrEnum):
    """Along what a search goes; the names are those of keys, of fields of a `Case`, and of columns of its row."""

    MAX_SEQ_LEN = "max_seq_len"
    CACHE_SIZE = "cache_size"


@dataclass(frozen=True)
class Search:
    """Every axis but one: how far does it go along that? `longest` is its case where the search ends.

    Its lengths, in tokens, are those of sequences or jobs, or of the cache that jobs share.
    """

    longest: Case
    axis: Axis = Axis.MAX_SEQ_LEN

    @property
    def search_end(self) -> int:
        """The longest length of the search: the model's own limit, unless told otherwise."""
        return self.longest.cache_tokens if self.axis is Axis.CACHE_SIZE else self.longest.max_seq_len

    @property
    def length(self) -> int:
        """How far along its axis `longest` is."""
        return self.search_end

    @property
    def shortest(self) -> int:
        """Where the search begins: a page, or the smallest cache that has room for the jobs."""
        if self.axis is Axis.MAX_SEQ_LEN:
            return min(PAGE, self.search_end)
        pages = max(-(-self.longest.max_seq_len // PAGE), self.longest.batch_size)
        return pages * PAGE

    def at(self, length: int) -> Case:
        """The case of the search at one length."""
        if self.axis is Axis.CACHE_SIZE:
            return dataclasses.replace(self.longest, cache_size=length)
        return dataclasses.replace(self.longest, max_seq_len=length)

    def along(self, case: Case) -> Search:
        """The same search with other settings, of which `case` is where it ends."""
        return dataclasses.replace(self, longest=case)

    def boundary_id(self, versions: dict[str, str | None]) -> str:
        """A hash of all that determines the boundary, the end of the search among it.

        No case has a length of 0, or a cache of 0 tokens: the two kinds of searches share no id.
        """
        return hashlib.sha256(f"{self.at(0).case_id(versions)} {self.search_end}".encode()).hexdigest()[:16]
