"""``collapse_bench.testing.weighing``, which users import too, under a short name."""

from collapse_bench.testing.weighing import *  # noqa: F403
