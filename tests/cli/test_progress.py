import io

import pytest
from rich.console import Console

from collapse_bench.cli import progress
from collapse_bench.cli.progress import RichWatch
from collapse_bench.types import Budget

BUDGET = Budget(num_generations=2, num_steps_initial=100, num_steps=50)


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", -1.0)


def shown(*, live: bool, terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal)
    with RichWatch(console, BUDGET, first=0, live=live, name="a sweep's cell") as watch:
        watch.phase(1, "fit")
        watch.step(20, 50, 0.25)
    return text.getvalue()


def test_where_no_bar_can_move_a_fit_prints_lines(every_step):
    assert shown(live=True, terminal=False) == "a sweep's cell: generation 1/2  fit  step 20/50  loss 0.25\n"


def test_a_short_fit_prints_none():
    assert shown(live=True, terminal=False) == ""


def test_without_progress_nothing_is_printed_before_a_generation_is_committed(every_step):
    assert shown(live=False, terminal=False) == ""


def test_a_moving_bar_needs_no_lines(every_step):
    assert "step 20/50  loss 0.25\n" not in shown(live=True, terminal=True)
