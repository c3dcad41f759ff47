"""Every note on a case that needs no more than the case and what the engine read. Pure; rows and plans share it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.allocator import dtypes
from bench.allocator.limits import attention_assumptions, first_forward_note, origins
from bench.core.case import UNQUANTISED_BPW, Case
from bench.core.device import DeviceSpec
from bench.engines.reading import Reading
from bench.engines.registry import engine_of, rules_of
from bench.synth.layout import SYNTHETIC

SYNTHETIC_NOTE = "weights made up by vram-bench synth"
NO_PEER_ACCESS_NOTE = "cards assumed not to reach each other's memory"
BALANCED_NOTE = "expert routing assumed balanced"


def notes_of_cards(devices: Sequence[DeviceSpec]) -> list[str]:
    """What simulated cards take for granted, and where their figures come from; each thing once."""
    notes: dict[str, None] = {}
    for device in devices:
        notes.update((f"{name} {origin}", None) for name, origin in origins(device).items() if origin != "measured")
        notes.update(dict.fromkeys(attention_assumptions(device)))
        if note := first_forward_note(device):
            notes[note] = None
    if len(devices) > 1:
        notes[NO_PEER_ACCESS_NOTE] = None
    return list(notes)


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
        yield engine_of(case.engine).layout_note
    if SYNTHETIC in config:
        yield SYNTHETIC_NOTE
    yield from rules_of(case.engine).notes(case, reading)
