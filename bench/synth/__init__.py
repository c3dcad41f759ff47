"""Synthetic checkpoints: the layout of a model, filled with random values."""
