"""The configuration that a command line names, of whichever program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.setups.setup import Setup
from bench.setups.tabbyapi import read_tabby
from bench.setups.webui import read_webui


def read_setup(tabby: Path | None, webui: str | None, typed: Sequence[str]) -> Setup:
    """What one of the two says, beside the overrides that were `typed`. Raises `BadInput`."""
    if tabby is not None:
        return read_tabby(tabby.expanduser(), typed)
    return read_webui(webui or "", typed)
