"""What exllamav3 would refuse, or lose, of a case: known before anything runs."""

from __future__ import annotations

from bench.core.case import Case


def refusal(case: Case) -> str | None:
    """Why a case cannot be run, and what to give in its place; None where it can."""
    return None
