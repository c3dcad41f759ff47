"""Options of the commands that say what to run, as they are typed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.analysis.asked import DEFAULT_HEADROOM_BYTES
from bench.analysis.quality import PUBLISHED, UnusableQuality, read_quality
from bench.config.units import parse_size
from bench.core.errors import BadInput


def headroom_of(text: str | None) -> int:
    """Bytes of --headroom; raises `BadInput`."""
    if text is None:
        return DEFAULT_HEADROOM_BYTES
    if text.strip() == "0":
        return 0
    try:
        return parse_size(text)
    except ValueError as error:
        raise BadInput(f"--headroom {error}; 0 for none") from None


def quality_of(path: Path | None) -> pd.DataFrame:
    """The figures of --quality, by default those that were published; raises `BadInput`."""
    try:
        return read_quality(path or PUBLISHED)
    except UnusableQuality as error:
        raise BadInput(f"--quality {error}") from None
