"""The draft model of a case: what it is, and whether the engine's generator would take it."""

from __future__ import annotations

from bench.config.devices import DEFAULT_SIMULATED
from bench.config.drafts import named_as_typed
from bench.config.lengths import lengths_of_model
from bench.config.models import resolve_model
from bench.config.settings import Settings
from bench.config.weights import bits_of, head_bits_of
from bench.core.case import DraftModel, ModelSpec
from bench.core.device import DeviceSpec
from bench.core.errors import BadInput
from bench.engines.base import EngineSpec
from bench.engines.reading import find_number

# Tables of one vocabulary are padded to different sizes: those of Qwen2.5-0.5B and -7B differ by 128.
_MOST_PADDING = 128


def draft_model_of(
    settings: Settings, model: ModelSpec, engine: EngineSpec, devices: tuple[DeviceSpec, ...]
) -> DraftModel | None:
    """The model that proposes tokens; None where none is asked for. Raises `BadInput` for one that does not go with it.

    Nobody compares the texts of two vocabularies here, as the engines do not: sizes tell those apart that cannot go
    together.
    """
    asked = settings.draft_model
    if asked is None:
        return None
    if not engine.draft_models:
        raise BadInput(f"draft=model: {engine.title} is not run with a draft model here; leave it out")
    if len(devices) > 1:
        raise BadInput(
            "draft=model: draft models are run on one card here; give one of them, or leave the draft model out"
        )
    with named_as_typed():
        draft = resolve_model(asked.model, asked.bpw, engine.name)
        bpw = bits_of(draft, asked.bpw, engine)
    if not devices[0].is_simulated and not draft.has_weights:
        raise BadInput(
            f"draft.model={draft.name}: a real GPU needs {engine.weights.quantised} weights of it, too; give them with "
            f"draft.model.path=DIR or draft.model=hub draft.model.repo=ORG/NAME, or device={DEFAULT_SIMULATED}"
        )
    cache = engine.cache_synonyms.get(asked.cache, str(asked.cache))
    if cache not in engine.caches:
        raise BadInput(f"draft.cache={cache}: allowed with {engine.title} are {engine.caches_in_words}")
    sizes = [find_number(each.config, "vocab_size") for each in (model, draft)]
    if None not in sizes and abs((sizes[0] or 0) - (sizes[1] or 0)) > _MOST_PADDING:
        raise BadInput(
            f"draft.model={draft.name}: its vocabulary has {sizes[1]:,.0f} tokens, and that of {model.name} "
            f"{sizes[0]:,.0f}; the engine hands tokens over by their numbers: give a smaller model of the same family"
        )
    return DraftModel(draft, bpw, head_bits_of(draft, bpw, engine.default_head_bits), cache)


def draft_limit(draft: DraftModel | None, engine: EngineSpec) -> int | None:
    """How long a job may be at most for a draft model's sake, in tokens; None where nothing says so."""
    return None if draft is None else lengths_of_model(draft.model, engine.name).limit


def require_length(draft: DraftModel | None, max_seq_len: int, engine: EngineSpec) -> None:
    """Refuses a job that is longer than the draft model can follow: the generator wants one that can. `BadInput`."""
    limit = draft_limit(draft, engine)
    if draft is not None and limit is not None and max_seq_len > limit:
        raise BadInput(
            f"draft.model={draft.model.name}: it has {limit:,} tokens, fewer than max_seq_len={max_seq_len}, and the "
            f"generator wants a draft model that is as long; give another, or a max_seq_len of at most {limit}"
        )
