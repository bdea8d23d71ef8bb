"""The live display of a run."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from collapse_bench.records import Record
from collapse_bench.types import Budget
from collapse_bench.watch import Watch

SECONDS_PER_LINE = 60.0
"""How often a fit is reported where no bar can move, as in the log of a cluster's job."""


class RichWatch(Watch):
    """Shows the generation, the phase, the step, the loss and the time left; prints a line per generation.

    Where the console is no terminal, so that no bar can move, a long fit prints a line every ``SECONDS_PER_LINE``.

    Args:
        console: where to.
        budget: of the run, from which the time left is estimated.
        first: the first generation that will be computed.
        live: whether to draw the moving bar as well as the lines.
        name: of the run, before each line.
    """

    def __init__(self, console: Console, budget: Budget, first: int, live: bool, name: str = "") -> None:
        self._console, self._budget, self._name = console, budget, f"{name}: " if name else ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not (live and console.is_terminal),
            transient=True,
        )
        total = sum(budget.num_fit_steps(t) for t in range(first, budget.num_generations + 1))
        self._task = self._progress.add_task("starting", total=max(1, total), detail="")
        self._done = 0
        self._in_lines = live and not console.is_terminal
        self._phase, self._last_line = "starting", time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def phase(self, generation: int, name: str) -> None:
        """See ``Watch.phase``."""
        what = f"generation {generation}/{self._budget.num_generations}  {name}"
        self._phase = what
        self._progress.update(self._task, description=what, detail="")

    def step(self, step: int, num_steps: int, loss: float) -> None:
        """See ``Watch.step``."""
        detail = f"step {step}/{num_steps}  loss {loss:.4g}"
        self._progress.update(self._task, completed=self._done + step, detail=detail)
        if self._in_lines and time.monotonic() - self._last_line > SECONDS_PER_LINE:
            self._print(f"{self._name}{self._phase}  {detail}")

    def committed(self, record: Record) -> None:
        """See ``Watch.committed``."""
        self._done += self._budget.num_fit_steps(record.generation)
        self._progress.update(self._task, completed=self._done)
        seconds = "  ".join(f"{phase} {s:.1f} s" for phase, s in record.spent.seconds.items())
        reused = f"  (from the cache: {', '.join(record.spent.reused)})" if record.spent.reused else ""
        size = f"{in_millions(record.num_parameters)} parameters"
        self._print(f"{self._name}generation {record.generation} committed  {size}  {seconds}{reused}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._last_line = time.monotonic()


def in_millions(count: int) -> str:
    """A number of parameters for people: ``"1.2 M"``, ``"189 k"``, ``"65"``."""
    if count >= 999_500:
        return f"{count / 1e6:.1f} M"
    return f"{count / 1e3:.0f} k" if count >= 1000 else str(count)
