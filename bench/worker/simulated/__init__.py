"""The simulated card: fake CUDA tensors over a model of the allocator."""
