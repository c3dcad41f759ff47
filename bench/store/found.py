"""Whether there is anything to read: nothing else here is needed where there is not, pyarrow neither."""

from __future__ import annotations

import os
from pathlib import Path

_ROWS = (".parquet", ".jsonl")


def has_rows(results_dir: Path) -> bool:
    """Whether files of rows, or files that may be, are below `results_dir`; true of anything else that is no folder."""
    if not results_dir.is_dir():
        return results_dir.exists()
    return any(name.endswith(_ROWS) for _, _, names in os.walk(results_dir) for name in names)
