"""A comparison for people: Markdown, terminal, JSON."""
