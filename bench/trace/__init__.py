"""An engine's allocations: recorded, solved for the lengths, replayed on any card. Free of torch."""
