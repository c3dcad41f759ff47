"""Pictures: for each card how far its models go, where the memory goes there, and the peaks case by case."""
