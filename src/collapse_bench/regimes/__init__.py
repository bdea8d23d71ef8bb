"""Regimes: rules that compose the next training pool."""
