"""By how many pages a boundary of a made-up layout may be off: what is known of real checkpoints' holes.

Holes are memory that PyTorch holds and cannot give to anyone. Those of real checkpoints were told by out-of-memory
messages of a real card (docs/simulation.md has them, beside the same cases on a simulated one).
"""

from __future__ import annotations

from bench.core.case import PAGE

_MIB = 1 << 20
# The most that a real checkpoint's holes differed from those of the made-up one, by the models that have its shapes.
_DIFFERED_BYTES = {
    "mistral_nemo_12b": 80 * _MIB,  # 2.5 bpw +80, 6.0 bpw +27: made-up less real
    **dict.fromkeys(("qwen2_5_32b", "qwq_32b", "qwen2_5_coder_32b", "deepseek_r1_distill_qwen_32b"), 57 * _MIB),
}


def pages_note(model: str, cache: str, cache_bytes: int, cache_tokens: int) -> str:
    """How far off a boundary may be, for a `cache` of so many bytes and tokens; or that nobody knows."""
    differed_bytes = _DIFFERED_BYTES.get(model)
    pages = cache_tokens / PAGE
    if differed_bytes is None or pages < 1 or cache_bytes <= 0:
        return "by how many pages a real checkpoint's holes move this boundary is unknown for this model"
    number = max(1, -(-differed_bytes * int(pages) // cache_bytes))
    return (
        f"a real checkpoint's holes differed by up to {differed_bytes // _MIB} MiB for this model: "
        f"± {number} page{'s' * (number > 1)} of {PAGE} tokens in a {cache} cache"
    )
