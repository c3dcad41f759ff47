"""The version that is meant where something is said of what the engine does."""

from __future__ import annotations

ENGINE = "exllamav3 1.6.5"
