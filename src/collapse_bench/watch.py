"""What a run tells whoever watches it. The base class is silent; the command line draws a progress display."""

from collapse_bench.records import Record


class Watch:
    """Watches a chain without touching it; every method may be overridden and none may raise."""

    def phase(self, generation: int, name: str) -> None:
        """A phase (``"fit"``, ``"sample"``, ``"measure"``, ...) of a generation begins."""

    def step(self, step: int, num_steps: int, loss: float) -> None:
        """Training has done ``step`` of ``num_steps`` gradient steps; ``loss`` is the latest."""

    def committed(self, record: Record) -> None:
        """A generation is on disk."""


class Watches(Watch):
    """Several watches as one.

    Args:
        watches: told in this order.
    """

    def __init__(self, *watches: Watch) -> None:
        self._watches = watches

    def phase(self, generation: int, name: str) -> None:
        """See ``Watch.phase``."""
        for watch in self._watches:
            watch.phase(generation, name)

    def step(self, step: int, num_steps: int, loss: float) -> None:
        """See ``Watch.step``."""
        for watch in self._watches:
            watch.step(step, num_steps, loss)

    def committed(self, record: Record) -> None:
        """See ``Watch.committed``."""
        for watch in self._watches:
            watch.committed(record)
