"""What is said of an engine without importing it. A second engine is one more of these, and a folder in `worker/`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bench.core.case import version_column

if TYPE_CHECKING:
    from bench.core.case import Case
    from bench.core.identity_columns import SettingColumns
    from bench.engines.reading import Reading
    from bench.trace.best_replay import BestReplayer
    from bench.trace.divided_replay import DividedReplayer
    from bench.trace.parametric import ParametricTrace
    from bench.trace.passes import Setup
    from bench.trace.placed_replay import PlacedReplayer
    from bench.trace.split import SplitTrace
    from bench.trace.split_replay import SplitReplayer


@dataclass(frozen=True)
class CacheType:
    """A way of keeping keys and values: the bits of an element of each, and the type in whose place it is recorded.

    Types that differ in these bytes alone share a recording.
    """

    key_bits: int
    value_bits: int
    recorded_as: str


@dataclass(frozen=True)
class Weights:
    """What an engine loads: `quantised` names its own format, of `formats.py`, and `plain_types` are safetensors'.

    `in_words` says both; `why_not` has formats that are not measured for another reason than that it cannot load them.
    """

    quantised: str
    plain_types: tuple[str, ...]
    in_words: str
    why_not: Mapping[str, str]


@dataclass(frozen=True)
class Server:
    """A program that loads an engine in its own way: its `title`, and what its autosplit keeps free on each card."""

    title: str
    first_reserve_bytes: int
    other_reserve_bytes: int

    def reserves(self, count: int) -> tuple[int, ...]:
        """Of each of `count` cards."""
        return (self.first_reserve_bytes, *[self.other_reserve_bytes] * (count - 1))


@dataclass(frozen=True)
class Frontend:
    """How a program that people configure has this engine run, read in its source at `version`.

    `names` are what it calls the engine, in small letters, and `caches` its types of cache, the name to prefer first;
    for a word that is none of those it takes `other_cache`, where it does not refuse it (None). `load` is the value of
    that key which comes nearest, `load_with_draft` the same beside a draft model, and `unlike` says what is still not
    the same. `default_tokens` are those of a context where none is given, None for the model's own; `whole_pages` says
    whether every context has whole pages. `default_jobs` says what it takes at a time by itself, where that is not the
    engine's own. `draft_tokens` are how many it has proposed whatever is asked for, and `ngram` whether it can have
    n-grams proposed.
    """

    title: str
    version: str
    names: tuple[str, ...]
    caches: Mapping[str, str]
    other_cache: str | None
    load: str
    load_with_draft: str
    unlike: str | None
    default_tokens: int | None
    whole_pages: bool = False
    default_jobs: str | None = None
    draft_tokens: int | None = None
    ngram: bool = False

    def cache_of(self, word: str) -> str | None:
        """The cache that a word stands for, however it is spaced; None where it stands for none."""
        by_letters = {"".join(name.lower().split()): cache for name, cache in self.caches.items()}
        return by_letters.get("".join(word.lower().split()))

    def word_for(self, cache: str) -> str:
        """Its word for a cache."""
        return next((word for word, name in self.caches.items() if name == cache), cache)


@dataclass(frozen=True)
class Package:
    """A module beside the engine: what helps where it is installed and broken, and what cannot be done meanwhile."""

    remedy: str
    blocks: str | None = None


class SimulatedSeconds(NamedTuple):
    """About how long the engine's own code takes on a simulated card, each in seconds.

    A layer is loaded, works off a chunk (by what its attention is made of, what the engine takes by itself first) and
    decodes a token; unquantised ones take
    `unquantised_chunk_layer` more of each. An expert of a layer is loaded, and run by the engine's code, or by its
    requests alone where that was shown to repeat.
    """

    load_layer: float
    load_unquantised_layer: float
    load_expert: float
    chunk_layer: Mapping[str, float]
    unquantised_chunk_layer: float
    decode_layer: float
    expert: float
    repeated_expert: float


class Snippet(NamedTuple):
    """A text to copy: what it is for, its language, and itself."""

    title: str
    language: str
    text: str


@dataclass(frozen=True)
class Chosen:
    """A setting that was chosen, for `max_seq_len` tokens of each of `batch_size` sequences: what snippets are for."""

    model: str
    setting: SettingColumns
    batch_size: int
    max_seq_len: int


def _nothing_more(case: Case, version: tuple[int, ...]) -> int:
    return 0


@dataclass(frozen=True)
class EngineSpec:
    """All that the parent knows of an engine.

    `name` is that of its package, `title` what people call it, `extension` its compiled module. `caches` begin with the
    most precise, `caches_in_words` names them for people, and `cache_synonyms` are other ways to write them.
    `attentions` are in the engine's own order of preference, without `auto`; `attention_synonyms` are what others call
    them. `allocator` is the kind of segments that it has PyTorch use, one of `ALLOCATORS`. `least_bpw` and `most_bpw`
    are those of its quantised weights. `has_max_attention_size` says whether it can be told to bound queries times
    keys. `context_step` divides every length of its cache, in tokens. `scenarios` are those that it is run in.
    `default_draft_tokens` and `most_draft_tokens` are how many tokens are proposed to its generator at a time.
    `job_spare_tokens` are those that it has room for beside what it promises a job; `draft_models` says whether a model
    may propose tokens. `servers` are those that it can be loaded as, by the value of the key `load`; `frontends` are
    the programs of which a configuration can be read, by the name of the option that takes it.
    `several_cards` says whether it is measured on more than one, `makes_checkpoints` whether checkpoints
    with random weights can be made for it; `layout_note` is what to know of the bit widths of one that has no weights
    yet. `architectures` are those that it has code for, by their
    names in config.json. `length_keys` are the keys of config.json in which it looks for a length, in its order, and
    `default_length` is what it takes where there is none; None for an engine that takes no length from config.json.
    `decode_efficiency` is the share of a card's bandwidth that decoding reaches, None where nothing published tells it.
    `unpacks_cache` says whether decoding unpacks a quantised cache to FP16 before it is read. `warm_up_tokens` are
    decoded on a real card before anything is measured. `simulated_seconds` are None where they were not measured.
    `oom_texts` are regular expressions of its own errors where memory runs out. `more_after_loading_bytes` is what
    another version of it is known to hold more than this one when a model is loaded.
    """

    name: str
    title: str
    extension: str
    caches: Mapping[str, CacheType]
    caches_in_words: str
    cache_synonyms: Mapping[str, str]
    attentions: tuple[str, ...]
    attention_synonyms: Mapping[str, str]
    allocator: str
    least_bpw: float
    most_bpw: float
    head_bits: tuple[int, ...]
    default_head_bits: int
    has_max_attention_size: bool
    context_step: int
    scenarios: tuple[str, ...]
    default_draft_tokens: int
    most_draft_tokens: int
    job_spare_tokens: int
    draft_models: bool
    servers: Mapping[str, Server]
    frontends: Mapping[str, Frontend]
    several_cards: bool
    makes_checkpoints: bool
    layout_note: str
    architectures: frozenset[str]
    length_keys: tuple[str, ...]
    default_length: int | None
    learned_positions: frozenset[str]
    weights: Weights
    decode_efficiency: float | None
    unpacks_cache: bool
    warm_up_tokens: int
    simulated_seconds: SimulatedSeconds | None
    oom_texts: tuple[str, ...]
    packages: Mapping[str, Package]
    more_after_loading_bytes: Callable[[Case, tuple[int, ...]], int] = _nothing_more

    @property
    def version_column(self) -> str:
        """Where rows keep its version."""
        return version_column(self.name)


def _predicted(case: Case) -> str | None:
    return None


@dataclass(frozen=True)
class PredictionRules:
    """What a prediction takes of an engine: how its recordings become those of any case."""

    # What a recording is of: cards that differ in it need one each.
    kind_of_cards: Callable[[Case], object]
    # The rules for a search: from what was kept with a trace, and of a case that nobody has recorded.
    setup: Callable[..., Setup]
    unread_setup: Callable[[Case, str], Setup]
    # Has numba load, or compile, what schedules are made with.
    load_compiled: Callable[[], None]
    # The trace with another type of cache, of one with the type in whose place it was recorded.
    with_cache: Callable[[ParametricTrace, str], ParametricTrace]
    # What replays a search on several cards: its trace, the sizes of the checkpoint's tensors, and any case of it.
    split_replayer: Callable[
        [SplitTrace, Mapping[str, int], Case], SplitReplayer | PlacedReplayer | BestReplayer | DividedReplayer
    ]
    # The trace of a checkpoint, from that of any bits and that of its own up to the first prompt of any length; None
    # where the sizes of its tensors tell as much.
    with_loading: Callable[[ParametricTrace, ParametricTrace], ParametricTrace] | None = None
    # Why nothing of a case is predicted, known without a recording. A reason that begins with `Unsupported: ` says that
    # the engine does not run it at all.
    unpredicted: Callable[[Case], str | None] = _predicted


@dataclass(frozen=True)
class EngineRules:
    """What the parent computes of an engine. Kept apart from its `EngineSpec`, as it takes NumPy and numba."""

    # Why a case cannot be run, and what to give in its place; None where it can.
    refusal: Callable[[Case], str | None]
    prediction: PredictionRules
    # What it will get wrong of a case, or not run as it is run here.
    notes: Callable[[Case, Reading], Iterable[str]]
    # What to copy to run a chosen setting.
    snippets: Callable[[Chosen], list[Snippet]]


def wanted_weights(chosen: Chosen) -> str:
    """Which weights a reader should have for a setting."""
    head_bits = chosen.setting["head_bits"]
    head = "" if head_bits is None else f", head_bits {head_bits}"
    return f"{chosen.model} at {chosen.setting['bpw']:g} bpw{head}"
