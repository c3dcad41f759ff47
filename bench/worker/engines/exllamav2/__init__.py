"""ExLlamaV2 in the worker: its session, checkpoints and refusals, and what simulating and recording it takes."""
