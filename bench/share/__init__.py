"""Rows that people send each other: packed without names of theirs, and read as what anybody may have written."""
