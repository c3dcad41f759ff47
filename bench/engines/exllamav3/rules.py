"""What the parent computes of exllamav3. Nothing of it is predicted yet: its boundaries are found by runs."""

from __future__ import annotations

from bench.engines.base import EngineRules
from bench.engines.exllamav3.notes import notes
from bench.engines.exllamav3.refusals import refusal
from bench.engines.exllamav3.snippets import snippets

RULES = EngineRules(refusal=refusal, prediction=None, notes=notes, snippets=snippets)
