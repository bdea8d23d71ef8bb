"""Intervals of 95 % over the finite sample of images."""

import math

Z_95 = 1.959963984540054
"""Standard normal quantile at 97.5 %."""


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927. Unlike the normal
    interval it keeps its level for shares near 0 and 1, which is where collapsed classes are.

    Args:
        count: images that have the property, 0 to ``total``.
        total: images, at least 1.

    Returns:
        Lower and upper end, in [0, 1].
    """
    share = count / total
    shrink = 1 + Z_95**2 / total
    centre = (share + Z_95**2 / (2 * total)) / shrink
    half = Z_95 * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2)) / shrink
    return (0.0 if count == 0 else centre - half, 1.0 if count == total else centre + half)


def normal_interval(value: float, standard_error: float) -> tuple[float, float]:
    """The 95 % interval of a number that is normal around the truth: ``value`` -+ 1.96 standard errors."""
    return (value - Z_95 * standard_error, value + Z_95 * standard_error)
