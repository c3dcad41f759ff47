"""Two sets of rows beside each other. Pure."""
