"""Arithmetic on the parameters of two models of one family."""

import copy

import torch

from collapse_bench.generators.base import Model


@torch.no_grad()
def moved(model: Model, other: Model, factor: float) -> Model:
    """A model at ``model`` + ``factor`` * (``other`` - ``model``), in float64; buffers are those of ``model``.

    Args:
        model: where the line starts; it is not changed.
        other: where factor 1 is.
        factor: negative goes away from ``other``.
    """
    result = copy.deepcopy(model)
    for parameter, there in zip(result.parameters(), other.parameters(), strict=True):
        here = parameter.double()
        parameter.copy_(here + factor * (there.to(here) - here))
    return result
