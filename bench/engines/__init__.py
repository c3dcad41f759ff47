"""What is said of an engine without importing it: its caches, passes, texts and notes; a folder an engine."""
