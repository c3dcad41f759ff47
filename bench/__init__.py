"""vram-bench: what fits on a GPU, measured on a real one or computed on a simulated one."""
