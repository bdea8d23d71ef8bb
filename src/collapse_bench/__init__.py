"""collapse-bench: generative image models retrained on their own samples, measured under one protocol."""
