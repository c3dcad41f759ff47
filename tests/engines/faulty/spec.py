"""What the parent knows of it."""

from __future__ import annotations

from bench.core.case import NATIVE
from bench.engines.base import CacheType, EngineSpec, Weights


class _Spec(EngineSpec):
    @property
    def version_column(self) -> str:
        """It has no column of its own."""
        return "engine_version"


SPEC = _Spec(
    name="faulty",
    title="the faulty engine",
    extension="faulty_ext",
    caches={"FP16": CacheType(16, 16, "FP16")},
    caches_in_words="FP16",
    cache_synonyms={},
    attentions=(),
    attention_synonyms={},
    allocator=NATIVE,
    least_bpw=2.0,
    most_bpw=8.0,
    head_bits=(6,),
    default_head_bits=6,
    has_max_attention_size=False,
    context_step=1,
    scenarios=("forward",),
    default_draft_tokens=1,
    most_draft_tokens=1,
    job_spare_tokens=0,
    draft_models=False,
    servers={},
    frontends={},
    several_cards=False,
    makes_checkpoints=False,
    layout_note="no checkpoint is laid out",
    architectures=frozenset({"FaultyForCausalLM"}),
    length_keys=("max_position_embeddings",),
    default_length=2048,
    learned_positions=frozenset(),
    weights=Weights("none that there are", (), "it loads nothing", {}),
    decode_efficiency=None,
    unpacks_cache=False,
    warm_up_tokens=2,
    simulated_seconds=None,
    oom_texts=(),
    packages={},
)
