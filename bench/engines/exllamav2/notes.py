"""What ExLlamaV2 0.3.2 will get wrong of a case, and what its own generators would not run."""

from __future__ import annotations

from collections.abc import Iterator

from bench.core.case import PAGE, Case
from bench.core.split import GAPS_NOTE, Split, SplitBy
from bench.engines.exllamav2.spec import SPEC
from bench.engines.exllamav2.tabbyapi import MAX_OUTPUT_LEN, VERSION, chunk_tokens
from bench.engines.exllamav2.version import ENGINE
from bench.engines.positions import positions_note
from bench.engines.reading import Reading
from bench.engines.windows import windows_note

SDPA_NOTE = (
    f"{ENGINE} applies no causal mask in its SDPA path: memory is right, outputs are not; "
    "install flash-attn or use attention=matmul"
)
VISION_NOTE = (
    "the vision tower is loaded before the language model, on the first card, as TabbyAPI does it: weights only; an "
    "image's activations are not counted"
)
_SCALED = 32  # values that share a scale in a quantised cache (ExLlamaV2's cache.py, cache_q.cuh)
# Keys that the engine reads at the top level alone, and what each does.
_TOP_LEVEL = {
    "attn_logit_softcapping": "soft caps",
    "final_logit_softcapping": "soft caps",
    "logit_scale": "the scale of the logits",
}


def notes(case: Case, reading: Reading) -> Iterator[str]:
    """One line each, the gravest first."""
    if reading.attention == "sdpa":
        yield SDPA_NOTE
    for note in (
        _server_note(case),
        VISION_NOTE if case.vision else None,
        positions_note(case.model.config, reading.rope, case.max_seq_len, ENGINE),
        windows_note(case.model.config, reading.windows, case.max_seq_len, ENGINE),
        _unread_note(case),
        _cache_note(case.cache, reading.head_dim),
        _length_note(case.max_seq_len),
        GAPS_NOTE if case.split is not None and Split.parse(case.split).by is SplitBy.GPU_SPLIT else None,
    ):
        if note is not None:
            yield note


def _server_note(case: Case) -> str | None:
    """What a server has set, and what it does beside loading."""
    if case.load_as is None:
        return None
    chunk = chunk_tokens(case.load_as, case.max_input_len, case.max_seq_len)
    autosplit = "autosplit for the last token's logits alone, " if case.lazy else ""
    return (
        f"loaded as {SPEC.servers[case.load_as].title} ({VERSION}) does: max_output_len={MAX_OUTPUT_LEN}, "
        f"max_input_len={chunk}, max_attention_size={case.max_attention_size}, {autosplit}then a test forward of "
        f"{chunk} tokens, and empty_cache when the generator is made"
    )


def _unread_note(case: Case) -> str | None:
    """Of a config.json whose text model has a scope of its own: what stands there and is looked for elsewhere."""
    config = case.model.config
    text = config.get("text_config")
    if not isinstance(text, dict):
        return None
    unread = [key for key in _TOP_LEVEL if text.get(key) is not None and config.get(key) is None]
    if not unread:
        return None
    return (
        f"{ENGINE} reads {' and '.join(unread)} at the top level of config.json alone, not in text_config: "
        "memory is right, outputs are not"
    )


def _cache_note(cache: str, head_dim: int) -> str | None:
    if cache == "FP16" or head_dim % _SCALED == 0:
        return None
    return (
        f"{ENGINE} writes past the end of the scales of a quantised cache where head_dim ({head_dim}) is no multiple "
        f"of {_SCALED} (read from its source): memory is right, outputs may not be; use cache=FP16"
    )


def _length_note(max_seq_len: int) -> str | None:
    """Of a length that can be run, as it is here, but not by a generator."""
    if max_seq_len % PAGE == 0:
        return None
    whole = max_seq_len // PAGE * PAGE or PAGE
    return f"{ENGINE}'s dynamic generator takes multiples of {PAGE} tokens: {whole:,} for {max_seq_len:,}"
