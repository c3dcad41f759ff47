"""What TabbyAPI and text-generation-webui call things of ExLlamaV2, and how they load it, as long as they did."""

from __future__ import annotations

from bench.engines.base import Frontend
from bench.engines.exllamav2.tabbyapi import VERSION

_CACHES = ("FP16", "Q8", "Q6", "Q4")

FRONTENDS = {
    # backends/exllamav2/model.py; of another word for the cache it warns, and takes FP16.
    "tabby": Frontend(
        title="TabbyAPI",
        version=f"{VERSION} (2026-06-27; its last ones with ExLlamaV2)",
        names=("exllamav2",),
        caches={name: name for name in _CACHES},
        other_cache="FP16",
        load="tabbyapi",
        load_with_draft="single",
        unlike=None,
        default_tokens=4096,
        draft_tokens=4,  # num_draft_tokens is not handed to the generator, whose default that is
    ),
    # modules/exllamav2.py
    "webui": Frontend(
        title="text-generation-webui",
        version="134ac8fc (2026-03-05; its last one with ExLlamaV2)",
        names=("exllamav2", "exllamav2_hf"),
        caches={name.lower(): name for name in _CACHES},
        other_cache=None,
        load="single",
        load_with_draft="single",
        unlike=None,
        default_tokens=8192,
    ),
}
