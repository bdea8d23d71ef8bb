"""Data sets: the only readers of raw data."""
