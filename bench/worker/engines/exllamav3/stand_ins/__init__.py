"""What takes the place of exllamav3's compiled code: its extension, and the kernels that Triton would make."""
