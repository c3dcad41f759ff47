"""Checkpoints that nobody trained."""
