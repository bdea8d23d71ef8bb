"""The mathematics of the metrics: pure functions of tensors."""
