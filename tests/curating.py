"""``collapse_bench.testing.curating``, which users import too, under a short name."""

from collapse_bench.testing.curating import *  # noqa: F403
