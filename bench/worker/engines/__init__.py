"""The engines, one folder each: all that knows an engine's own code. `registry.py` finds them by name."""
