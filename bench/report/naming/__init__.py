"""What models, cards, settings and cases are called: never two alike."""
