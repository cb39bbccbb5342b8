"""Trains detectors: data, sampling, optimiser, checkpoints, the loop; and runs them over datasets."""
