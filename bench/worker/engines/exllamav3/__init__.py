"""exllamav3, as a worker runs it: the package itself, or its Python code over stand-ins for what is compiled."""
