"""Samplers: from a fitted model and image seeds to images."""
