"""Metrics: numbers that compare generated images with held-out real ones."""
