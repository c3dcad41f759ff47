"""What TabbyAPI and text-generation-webui call things of exllamav3, and how they load it."""

from __future__ import annotations

from bench.engines.base import Frontend
from bench.engines.exllamav3.caches import CACHES

_BITS = {name: (cache.key_bits, cache.value_bits) for name, cache in CACHES.items() if name != "FP16"}
_NAMED = {name: name for name in ("FP16", "Q8", "Q6", "Q4")}

FRONTENDS = {
    # backends/exllamav3/model.py: Q8 is 8,8, and so on; what is no pair of bits is FP16.
    "tabby": Frontend(
        title="TabbyAPI",
        version="e632af4 (2026-08-13)",
        names=("exllamav3",),
        caches={**_NAMED, **{f"{keys},{values}": name for name, (keys, values) in _BITS.items()}},
        other_cache="FP16",
        load="single",
        load_with_draft="single",
        unlike=(
            "it loads by autosplit, also on one card, with 96 MiB in reserve; here the model is loaded as a whole, "
            "with no reserve (load=autosplit keeps the engine's own of 512 MiB)"
        ),
        default_tokens=None,
        whole_pages=True,
        default_jobs="128 jobs, or 4 of models with states beside the cache; here it is the engine's own: 256, or 16",
        ngram=True,
    ),
    # modules/exllamav3.py and exllamav3_hf.py
    "webui": Frontend(
        title="text-generation-webui",
        version="1dcde41d (2026-05-03)",
        names=("exllamav3", "exllamav3_hf"),
        caches={
            "fp16": "FP16",
            **{f"q{keys}_q{values}": name for name, (keys, values) in _BITS.items()},
            **{f"q{keys}": name for name, (keys, values) in _BITS.items() if keys == values},
        },
        other_cache="FP16",
        load="autosplit",
        load_with_draft="autosplit",
        unlike=(
            "its loader ExLlamav3 has a generator, which takes next to nothing more than the forward pass that is "
            "predicted here; both of its loaders load a vision tower before the model, where config.json has one, and "
            "here none is loaded"
        ),
        default_tokens=8192,
        whole_pages=True,
    ),
}
