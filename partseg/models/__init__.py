"""Detectors with an open vocabulary. ``config`` is plain data and imports no torch."""
