"""Sweeps by one of Hydra's launchers: searches become jobs of joblib, Ray or Slurm."""
