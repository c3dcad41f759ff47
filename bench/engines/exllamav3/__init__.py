"""exllamav3 as the parent knows it: `spec.py` has all of it, the other files what that is made of."""
