"""Hydra's sweeper for suites."""
