"""Parts that fail on purpose, to be named on a command line."""

from dataclasses import dataclass
from typing import final

from collapse_bench.distributed import rank
from collapse_bench.errors import SelectionError
from collapse_bench.mitigations.base import Curator
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw


@final
@dataclass(frozen=True)
class FailsInTheSecondProcess(Curator):
    """Is the control in the first process, and an error in the others while that one waits for them."""

    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        if rank() > 0 and now.generation == 1:
            raise SelectionError("this process has run out of luck")
        return draw(num_needed)
