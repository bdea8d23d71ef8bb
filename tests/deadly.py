"""A curator that counts what it is asked, and whose process dies where a test wants it to."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from collapse_bench.mitigations.base import Curator
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw


@final
@dataclass(frozen=True)
class Deadly(Curator):
    """Keeps all. A seed in ``DEADLY`` (``"crash=1 kill=2 hold=3"``) comes to grief at generation 1, the first time.

    A process is killed, or no longer held, when the log has the line ``DEADLY_AFTER``, such as ``"3 0"`` for seed 3,
    generation 0.
    The folder ``DEADLY_FOLDER`` has a line in ``log`` for every generation that any process computes.
    """

    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """See ``Curator.choose``."""
        folder = Path(os.environ["DEADLY_FOLDER"])
        log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, f"{now.seed} {now.generation}\n".encode())  # in one piece
        os.close(log)
        time.sleep(float(os.environ.get("DEADLY_SECONDS", "0")))
        for fate in os.environ.get("DEADLY", "").split():
            how, seed = fate.split("=")
            marker = folder / f"{how}_{seed}"
            if now.generation == 1 and now.seed == int(seed) and not marker.exists():
                marker.touch()
                if how == "crash":
                    raise RuntimeError("a slip of the hand\nin two lines")
                while os.environ["DEADLY_AFTER"] not in (folder / "log").read_text().splitlines():
                    time.sleep(0.05)
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
        return draw(num_needed).take(torch.arange(num_needed), because="all kept")
