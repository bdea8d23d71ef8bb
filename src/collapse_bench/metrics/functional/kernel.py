"""Kernel distance: the squared maximum mean discrepancy of a cubic kernel, with its standard error."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_NUM_ROWS = 256
_NUM_COLUMNS = 1024


class KernelEstimate(NamedTuple):
    """The kernel distance of two finite sets.

    Args:
        value: unbiased squared maximum mean discrepancy; may be negative.
        first_order: unbiased estimate of the first-order part of its variance; may be negative.
        second_order: unbiased estimate of the second-order part. Both are NaN below four images on a side.
    """

    value: float
    first_order: float
    second_order: float

    @property
    def standard_error(self) -> float:
        """Standard error of the value over both finite sets; NaN with fewer than four images on a side.

        A negative first-order part is taken as zero. That makes the error a little too large where both laws agree.
        """
        # max(nan, 0) is nan, max(0, nan) is not.
        return math.sqrt(max(self.first_order, 0.0) + max(self.second_order, 0.0))


def kernel_distance(generated: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]) -> KernelEstimate:
    """Unbiased squared maximum mean discrepancy of the kernel (x.y/d + 1)^3, with its standard error.

    Binkowski et al., "Demystifying MMD GANs", arXiv:1801.01401. All pairs are used (the full-sample
    U-statistic), so there is no subset size and no random number; the "KID std" over subsets is not a standard error.

    The standard error comes from the Hoeffding decomposition of this two-sample U-statistic. With n generated and m
    real images, write
    k(x, x') = c + p(x) + p(x') + e(x, x') on each side and k(x, y) = c + q(x) + r(y) + e(x, y) across, where every
    term has mean zero given any one argument. All terms are uncorrelated, so that, exactly,

        Var = 4/n Var(p - q) + 4/m Var(p' - r) + 2 Ee^2_xx / n(n-1) + 2 Ee^2_yy / m(m-1) + 4 Ee^2_xy / nm.

    The first two terms are the first-order part, zero when both laws agree. Each part is estimated without bias from
    least squares fits of the three kernel matrices (compare Sutherland and Deka, arXiv:1906.02104, for equal sizes,
    and Zhong et al., arXiv:2601.13874).

    Args:
        generated: features of generated images, at least two rows, any finite values.
        reference: features of held-out real images, at least two rows.

    Returns:
        The estimate and its variance; lower is better, 0 is expected for equal laws.
    """
    return kernel_distance_of_fits(kernel_fit(generated), kernel_fit(reference), kernel_fit(generated, reference))


class KernelFit(NamedTuple):
    """Least squares fit of a kernel matrix: k_ij = mean + row_i + column_j + residual.

    Args:
        mean: of the entries.
        rows: effects of the rows, float64.
        columns: effects of the columns, float64.
        residual: unbiased variance of the residuals: NaN where there are too few images.
    """

    mean: float
    rows: Float[Tensor, " n"]
    columns: Float[Tensor, " m"]
    residual: float


def kernel_distance_of_fits(xx: KernelFit, yy: KernelFit, xy: KernelFit) -> KernelEstimate:
    """The estimate of ``kernel_distance``, of which the fit of one set with itself may be kept.

    Args:
        xx: fit of the generated images with themselves.
        yy: fit of the real images with themselves.
        xy: fit of the generated with the real images.
    """
    n, m = len(xx.rows), len(yy.rows)
    value = xx.mean + yy.mean - 2 * xy.mean
    if min(n, m) < 4:
        return KernelEstimate(value, math.nan, math.nan)

    # The spread of a fitted row effect is that of the true one plus a known share of the residuals.
    first_order_x = (xx.rows - xy.rows).var().item() - xx.residual / (n - 2) - xy.residual / m
    first_order_y = (yy.rows - xy.columns).var().item() - yy.residual / (m - 2) - xy.residual / n
    first_order = 4 * first_order_x / n + 4 * first_order_y / m
    second_order = 2 * xx.residual / (n * (n - 1)) + 2 * yy.residual / (m * (m - 1)) + 4 * xy.residual / (n * m)
    return KernelEstimate(value, first_order, second_order)


def kernel_fit(left: Float[Tensor, "n d"], right: Float[Tensor, "m d"] | None = None) -> KernelFit:
    """The fit of the kernel matrix of two sets, or of one set with itself, without the diagonal.

    Args:
        left: features of one set, at least two rows, any finite values.
        right: features of the other, or ``None`` for the same.
    """
    points = left if right is None else right
    n, m = len(left), len(points)
    row_sums, column_sums = left.new_zeros(n, dtype=torch.float64), left.new_zeros(m, dtype=torch.float64)
    squares = 0.0
    for start in range(0, n, _NUM_ROWS):
        block = slice(start, min(start + _NUM_ROWS, n))
        # A matrix of one set is symmetric: what lies left of the block was seen above it.
        first = 0 if right is not None else start
        kernel = _kernel(left[block], points[first:])
        if right is None:
            kernel.diagonal().zero_()
            inner = kernel[:, : len(kernel)]
            squares += 2 * _sum_of_squares(kernel) - _sum_of_squares(inner)
            row_sums[block.stop :] += kernel[:, len(kernel) :].sum(0)
        else:
            squares += _sum_of_squares(kernel)
            column_sums += kernel.sum(0)
        row_sums[block] += kernel.sum(1)

    if right is None:
        num_pairs = n * (n - 1)
        mean = row_sums.sum() / num_pairs
        # A row misses its own diagonal entry, so its mean sees (n - 2) / (n - 1) of its effect.
        effects = (row_sums / (n - 1) - mean) * ((n - 1) / max(n - 2, 1))
        explained = num_pairs * mean.square() + 2 * (n - 2) * effects.square().sum()
        residual = (squares - explained) / (n * (n - 3)) if n > 3 else squares * mean * math.nan
        return KernelFit(mean.item(), effects, effects, residual.item())
    mean = row_sums.sum() / (n * m)
    effects_of_rows, effects_of_columns = row_sums / m - mean, column_sums / n - mean
    explained = n * m * mean.square() + m * effects_of_rows.square().sum() + n * effects_of_columns.square().sum()
    residual = (squares - explained) / ((n - 1) * (m - 1))
    return KernelFit(mean.item(), effects_of_rows, effects_of_columns, residual.item())


def _kernel(left: Float[Tensor, "n d"], right: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    kernel = torch.empty(len(left), len(right), dtype=torch.float64, device=left.device)
    left = left.double() / left.shape[1]
    # A tile at a time stays in the cache, and only a tile of the features is copied to float64.
    for start in range(0, len(right), _NUM_COLUMNS):
        tile = slice(start, start + _NUM_COLUMNS)
        base = (left @ right[tile].double().T).add_(1)
        kernel[:, tile] = base.square().mul_(base)
    return kernel


def _sum_of_squares(matrix: Tensor) -> float:
    return torch.linalg.vector_norm(matrix).square().item()
