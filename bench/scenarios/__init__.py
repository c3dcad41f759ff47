"""What is done with an engine to measure it, step by step; one file a scenario, free of torch."""
