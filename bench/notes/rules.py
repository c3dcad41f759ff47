"""Every note on a case that needs no more than the case and what the engine read. Pure; rows and plans share it."""

from __future__ import annotations

from collections.abc import Iterator

from bench.allocator import dtypes
from bench.allocator.limits import attention_assumptions, origins
from bench.core.case import PAGE, UNQUANTISED_BPW, Case, DeviceSpec
from bench.notes.positions import positions_note
from bench.notes.reading import ENGINE, Reading
from bench.notes.windows import windows_note
from bench.synth.layout import SYNTHETIC

SDPA_NOTE = (
    f"{ENGINE} applies no causal mask in its SDPA path: memory is right, outputs are not; "
    "install flash-attn or use attention=matmul"
)
SYNTHETIC_NOTE = "weights made up by vram-bench synth"
BALANCED_NOTE = "expert routing assumed balanced"
SYNTHETIC_LAYOUT_NOTE = (
    "bit widths laid out by vram-bench for the mean: certified for that layout; a real checkpoint's holes differ "
    "(model=hub or model=local reads its headers)"
)
_SCALED = 32  # values that share a scale in a quantised cache (ExLlamaV2's cache.py, cache_q.cuh)
# Keys that the engine reads at the top level alone, and what each does.
_TOP_LEVEL = {
    "attn_logit_softcapping": "soft caps",
    "final_logit_softcapping": "soft caps",
    "logit_scale": "the scale of the logits",
}


def notes_of_card(device: DeviceSpec) -> list[str]:
    """What a simulated card takes for granted, and where its figures come from."""
    notes = [f"{name} {origin}" for name, origin in origins(device).items() if origin != "measured"]
    return notes + attention_assumptions(device)


def notes_of_case(case: Case, reading: Reading) -> list[str]:
    """What is assumed of the model, and what the engine will get wrong."""
    return list(_notes(case, reading))


def _notes(case: Case, reading: Reading) -> Iterator[str]:
    config = case.model.config
    simulated = case.device.is_simulated
    if simulated and reading.experts > 1:
        yield BALANCED_NOTE
    yield from dtypes.assumptions(config, case.bpw, case.model.has_weights)
    if simulated and not case.model.has_weights and case.bpw != UNQUANTISED_BPW:
        yield SYNTHETIC_LAYOUT_NOTE
    if SYNTHETIC in config:
        yield SYNTHETIC_NOTE
    if reading.attention == "sdpa":
        yield SDPA_NOTE
    for note in (
        positions_note(config, reading.rope, case.max_seq_len),
        windows_note(config, reading.windows, case.max_seq_len),
        _unread_note(case),
        _cache_note(case.cache, reading.head_dim),
        _length_note(case.max_seq_len),
    ):
        if note is not None:
            yield note


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
