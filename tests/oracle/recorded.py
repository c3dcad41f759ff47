"""What the null GPU answered, as it is kept in a file: gzip over JSON."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

from bench.core.case import Case


class Recorded(NamedTuple):
    """A case, and what it came to on the null GPU, whose cards had `peer_access` to each other or not."""

    case: Case
    outcome: dict[str, Any]
    peer_access: bool = False


def read(path: Path) -> list[Recorded]:
    """The cases of a file that `tests.oracle.engine` has written."""
    document = json.loads(gzip.decompress(path.read_bytes()))
    return [Recorded(**{**each, "case": Case.from_json(each["case"])}) for each in document["cases"]]
