"""The child: one case, on a real card or a simulated one. The parent imports nothing of it."""
