"""Why a published figure is held against nothing."""

from __future__ import annotations


class NotComparable(Exception):
    """The line is listed, with this reason."""
