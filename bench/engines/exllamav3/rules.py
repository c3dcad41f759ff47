"""What the parent computes of exllamav3. Nothing of it is predicted yet: its boundaries are found by runs."""

from __future__ import annotations

from bench.core.case import Case
from bench.engines.base import EngineRules
from bench.engines.exllamav3.architectures import ARCHITECTURES
from bench.engines.exllamav3.notes import notes
from bench.engines.exllamav3.refusals import refusal
from bench.engines.exllamav3.snippets import snippets
from bench.engines.exllamav3.version import ENGINE


def _unpredicted(case: Case) -> str:
    """Why nothing is predicted of a case."""
    if case.model.architecture not in ARCHITECTURES:
        return f"Unsupported: {ENGINE} does not know the architecture {case.model.architecture}"
    return "exllamav3 is not predicted yet: a sweep finds how far it goes, by runs"


RULES = EngineRules(refusal=refusal, prediction=_unpredicted, notes=notes, snippets=snippets)
