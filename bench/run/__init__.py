"""A sweep: which case is next, its verdict, its row."""
