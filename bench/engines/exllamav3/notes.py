"""What exllamav3 1.6.5 will get wrong of a case, or not run as it is run here."""

from __future__ import annotations

from collections.abc import Iterator

from bench.core.case import Case
from bench.engines.reading import Reading


def notes(case: Case, reading: Reading) -> Iterator[str]:
    """One line each, the gravest first."""
    yield from ()
