"""A model of PyTorch's CUDA allocator, and what else of a card takes memory. Free of torch."""
