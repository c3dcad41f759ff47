"""The version that is meant where something is said of what the engine gets wrong."""

from __future__ import annotations

ENGINE = "ExLlamaV2 0.3.2"
