"""Measurements: each module is a script, and prints ratios measured side by side in one run."""
