"""From a command line to checked cases: Hydra, the catalogue, models, cards."""
