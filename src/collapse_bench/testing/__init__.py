"""What tests of parts stand on, ours and those of users: contracts, tiny chains, listed candidates, written pools.

Nothing here needs pytest; the contracts are classes that it collects.
"""

from collapse_bench.testing.chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed
from collapse_bench.testing.contracts import DatasetContract, MetricContract, MitigationContract, RegimeContract
from collapse_bench.testing.curating import Bench, assert_equal_pools, noise, points
from collapse_bench.testing.weighing import born, with_garbage

__all__ = [
    "TINY",
    "TINY_FLOW",
    "TINY_GAUSSIAN",
    "Bench",
    "DatasetContract",
    "FinishedChain",
    "MetricContract",
    "MitigationContract",
    "RegimeContract",
    "assert_equal_chains",
    "assert_equal_pools",
    "born",
    "composed",
    "noise",
    "points",
    "with_garbage",
]
