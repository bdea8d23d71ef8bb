"""Encoders: maps from images to features in which images are compared."""
