"""What a card, an engine and a session are to the rest of the worker: interfaces, free of any engine."""
