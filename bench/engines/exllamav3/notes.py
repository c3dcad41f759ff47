"""What exllamav3 1.6.5 will get wrong of a case, or not run as it is run here."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bench.core.case import Case
from bench.engines.exllamav3.refusals import is_latent
from bench.engines.exllamav3.version import ENGINE
from bench.engines.positions import positions_note
from bench.engines.reading import Reading
from bench.engines.windows import windows_note

_PAIR = re.compile(r"k(\d)v(\d)")


def notes(case: Case, reading: Reading) -> Iterator[str]:
    """One line each, the gravest first."""
    config = case.model.config
    for note in (
        positions_note(config, reading.rope, case.max_seq_len, ENGINE, reads_rope_parameters=True),
        windows_note(config, reading.windows, case.max_seq_len, ENGINE, reads_pattern=False),
        _latent_note(case) if is_latent(config) else None,
    ):
        if note is not None:
            yield note


def _latent_note(case: Case) -> str | None:
    """Latent attention caches one plane for keys and values (exllamav3/cache/mla.py): the values have no bits."""
    pair = _PAIR.fullmatch(case.cache)
    if pair is None or pair[1] == pair[2]:
        return None
    same = f"k{pair[1]}v{pair[1]}"
    return f"with latent attention {ENGINE} takes the bits of the keys alone: cache={case.cache} is {same}"
