"""Generators: families of models and how they are fitted."""
