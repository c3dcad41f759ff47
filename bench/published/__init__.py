"""Figures that others have published of real cards: read from a table, and the same cases run on simulated ones."""
