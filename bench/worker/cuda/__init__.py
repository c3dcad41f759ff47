"""Real cards: PyTorch's own counters beside NVML's, and CUDA time."""
