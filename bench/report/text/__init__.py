"""Units, and tables as text."""
