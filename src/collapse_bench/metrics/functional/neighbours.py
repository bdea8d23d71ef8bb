"""Distances and nearest neighbours, in float64 and in blocks of rows, so that no n x n matrix is ever kept."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 1 + 1e-9
"""Squared radii grow by this factor, so that float64 rounding cannot break a tie: inside means ``<=``."""


def centred(
    generated: Float[Tensor, "m d"], reference: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "m d"], Float[Tensor, "n d"]]:
    """Both sets in float64 with the reference mean at the origin, where distances by inner products lose nothing."""
    origin = reference.double().mean(0)
    return generated.double() - origin, reference.double() - origin


def squared_distances(
    queries: Float[Tensor, "q d"], points: Float[Tensor, "p d"], num_rows: int = 256
) -> Iterator[tuple[slice, Tensor]]:
    """Squared Euclidean distances from queries to points, a block of queries at a time.

    Args:
        queries: one row per query, float64, near the origin.
        points: one row per point, likewise.
        num_rows: queries per block; bounds the memory.

    Yields:
        The queries of the block and their distances, queries x points.
    """
    norms = points.square().sum(1)
    for start in range(0, len(queries), num_rows):
        block = slice(start, start + num_rows)
        squared = torch.addmm(norms, queries[block], points.T, alpha=-2)
        yield block, squared.add_(queries[block].square().sum(1, keepdim=True)).clamp_(min=0)


def nearest_distances(queries: Float[Tensor, "q d"], points: Float[Tensor, "p d"]) -> Float[Tensor, " q"]:
    """Distance from every query to its nearest point, in the features' unit."""
    return torch.cat([squared.amin(1) for _, squared in squared_distances(queries, points)]).sqrt()


def squared_radii(points: Float[Tensor, "n d"], num_neighbours: int) -> Float[Tensor, " n"]:
    """Squared distance from every point to its k-th nearest among the other distinct points.

    Repeated points count once: else the radius of a point that is repeated k times would be 0. A point leaves itself
    out by its index. Where there are fewer than k other distinct points the farthest is taken (0 for a single one).

    Args:
        points: one row per point, float64, near the origin.
        num_neighbours: k, at least 1.
    """
    distinct, owner = torch.unique(points, dim=0, return_inverse=True)
    k = min(num_neighbours, len(distinct) - 1)
    radii = points.new_zeros(len(distinct))
    if k > 0:
        for block, squared in squared_distances(distinct, distinct):
            rows = torch.arange(len(squared), device=points.device)
            squared[rows, rows + block.start] = torch.inf
            radii[block] = squared.topk(k, largest=False).values[:, -1]
    return radii[owner]
