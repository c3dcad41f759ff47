"""What rows show: evidence, recommendations, trade-offs, claims. Pure."""
