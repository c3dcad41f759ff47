"""What exllamav3's Generator is told, and the passes that it makes of its jobs (generator/generator.py, job.py)."""

from __future__ import annotations

MOST_JOBS = 256  # Generator: max_batch_size
MOST_SLOTS = 16  # Cache: max_batch_size, for models with states beside the cache
NGRAM_TOKENS = 2  # what TabbyAPI looks for by default (ngram_match_min); the engine's own 0 is none
