"""``collapse_bench.testing.chains``, which users import too, under a short name."""

from collapse_bench.testing.chains import *  # noqa: F403
