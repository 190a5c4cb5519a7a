"""Measurements: what the documentation quotes, and how to repeat it."""
