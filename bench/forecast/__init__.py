"""What can be said before a run: predictions, the search for a boundary, calibration, estimates."""
