"""The leaderboard: what each mitigation gains over doing nothing, in committed results."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from collapse_bench.analysis.comparing import does_nothing
from collapse_bench.analysis.entries import Entry, find_entries, load_entry_runs
from collapse_bench.analysis.formats import to_html, to_markdown, to_text
from collapse_bench.analysis.ranking import Place, Ranking, budget_classes, differing_entries, distance_from_best, rank
from collapse_bench.analysis.runs import Run, better, group_by_arm, group_by_family, headline
from collapse_bench.analysis.statistics import SeedInterval, paired_difference
from collapse_bench.analysis.tables import RANKED, format_interval, format_rank, label, refusals

LEGEND = (
    "What each mitigation gains over doing nothing, which is the same regime and settings with mitigation=control: "
    "the paired difference seed by seed at the last generation, with the 95 % t interval, which is not corrected for "
    "the number of arms and metrics: of twenty arms that gain nothing, one lies outside it by chance. Positive is "
    "better, for every metric; where 1 or the floor is best, it is the distance from it that shrinks. Below: the rank"
    " among the arms of the same budget with its 95 % interval (a bootstrap over seeds, which covers less than it "
    "says with few of them), and the value. Arms of different budgets are not ranked against each other: what a "
    "budget is stands below each table. Rows are in order of the gain in the first metric. An interval is conditional"
    " on one split and one encoder."
)
"""How a leaderboard is read."""

_NOTHING = "n/a"


@dataclass(frozen=True)
class Standing:
    """The arms of one regime: a mitigation each, and the control without any.

    Args:
        family: the regime, with what else sets it apart from other families of the same results.
        control: name of the control's arm.
        rankings: by metric, those of ``rank``, one per budget.
        gains: by metric and arm, the gain over the control; positive is better, in units of the metric.
        budgets: by arm, the number of its budget, from 1.
        notes: what each budget is, and which mitigations make no sense here.
    """

    family: str
    control: str
    rankings: Mapping[str, Sequence[Ranking]]
    gains: Mapping[str, Mapping[str, SeedInterval]]
    budgets: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """The standing of mitigations in one entry.

    Args:
        folder: of the entry.
        entry: what it says of itself.
        standings: one per family of regimes in which a mitigation was run beside its control.
        tables: their tables as text, in the same order.
    """

    folder: Path
    entry: Entry
    standings: tuple[Standing, ...]
    tables: tuple[pd.DataFrame, ...]

    @property
    def title(self) -> str:
        """Suite and data set."""
        return f"{self.entry.suite or self.entry.name} on {self.entry.dataset}"

    @property
    def has_intervals(self) -> bool:
        """Whether any gain stands on more than one seed."""
        gains = (
            gain for standing in self.standings for of_metric in standing.gains.values() for gain in of_metric.values()
        )
        return any(gain.n > 1 for gain in gains)

    @property
    def origin(self) -> str:
        """Where the numbers come from, in one line."""
        machines = sorted({str(machine.get("device", "?")) for machine in self.entry.machines})
        return (
            f"{self.entry.date}, commit {self.entry.commit}, by {self.entry.submitter}: {self.entry.num_runs} runs on "
            f"{', '.join(machines)}; {self.folder}"
        )


def boards(folder: str | Path) -> list[Board]:
    """The standing in every entry in a folder, the newest first.

    After them those of one seed, which have no intervals, and last those without a mitigation beside a control.

    Raises:
        RunDirError: if there is no entry, or one is damaged or does not describe its archive.
    """
    found = []
    for path, entry in find_entries(folder).items():
        runs = load_entry_runs(path, entry)
        of_entry = standings(runs)
        found.append(Board(path, entry, tuple(of_entry), tuple(format_standing(s) for s in of_entry)))
    return sorted(found, key=lambda board: (not board.standings, not board.has_intervals))


def standings(runs: Sequence[Run]) -> list[Standing]:
    """The standing of mitigations in each family of regimes that has a control and a mitigation.

    Raises:
        RunDirError: if the runs do not compare.
    """
    found = []
    for family, arms in group_by_family(runs).items():
        settings = next(iter(arms.values()))[0].settings_without("mitigation")
        members = [run for run in runs if run.settings_without("mitigation") == settings]  # the refused ones, too
        undone = [run for run in members if does_nothing(run)]
        if len(undone) < len(members) and any(run.records for run in undone):
            found.append(_standing(family, members))
    return found


def format_standing(standing: Standing) -> pd.DataFrame:
    """A standing as text: one row per arm, the largest gain in the first metric first."""
    places = {
        metric: {place.arm: (place, ranking) for ranking in rankings for place in ranking.places}
        for metric, rankings in standing.rankings.items()
    }
    first = next(iter(places))
    body: dict[str, dict[str, str]] = {}
    for arm in sorted(places[first], key=lambda arm: _order(standing, first, arm)):
        place, _ = places[first][arm]
        cells = {"budget": str(standing.budgets[arm]), "seeds": str(place.value.n)}
        for metric, of_metric in places.items():
            cells[f"gain in {label(metric)}"] = _cell(standing, metric, *of_metric[arm])
        body[f"{arm} (undertrained)" if place.undertrained else arm] = cells
    return pd.DataFrame.from_dict(body, orient="index").rename_axis(f"under {standing.family}")


def as_text(found: Sequence[Board], width: int = 120) -> str:
    """The leaderboard for a terminal of so many columns."""
    parts = [textwrap.fill(LEGEND, width)]
    for board in _with_standings(found):
        parts.append(f"{board.title}\n{'=' * len(board.title)}\n{textwrap.fill(board.origin, width)}")
        for standing, table in zip(board.standings, board.tables, strict=True):
            notes = [textwrap.fill(note, width, subsequent_indent="  ") for note in standing.notes]
            parts.append("\n".join([to_text(table, width), "", *notes]))
    parts += [textwrap.fill(line, width) for line in _other_results(found)]
    return "\n\n".join(parts) + "\n"


def as_markdown(found: Sequence[Board]) -> str:
    """The leaderboard as GitHub reads it."""
    parts = ["# Standing of mitigations", LEGEND]
    for board in _with_standings(found):
        parts += [f"## {board.title}", board.origin]
        for standing, table in zip(board.standings, board.tables, strict=True):
            parts += [f"### Under `{standing.family}`", to_markdown(table), *standing.notes]
    parts += _other_results(found)
    return "\n\n".join(parts) + "\n"


def as_html(found: Sequence[Board]) -> str:
    """The leaderboard as one page without other files."""
    sections = [
        (board, [(s, to_html(t)) for s, t in zip(board.standings, board.tables, strict=True)])
        for board in _with_standings(found)
    ]
    environment = Environment(
        loader=PackageLoader("collapse_bench.analysis", "."), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("leaderboard.html.jinja").render(
        legend=LEGEND, sections=sections, other_results=_other_results(found)
    )


def _with_standings(found: Sequence[Board]) -> list[Board]:
    return [board for board in found if board.standings]


def _other_results(found: Sequence[Board]) -> list[str]:
    """One sentence that names the entries without a mitigation, if there are any."""
    names = [f"{board.title} ({board.folder})" for board in found if not board.standings]
    return [f"Other results, which have no mitigation beside its control: {'; '.join(names)}."] if names else []


def _standing(family: str, members: Sequence[Run]) -> Standing:
    arms = group_by_arm(members)
    control = next(arm for arm, of_arm in arms.items() if does_nothing(of_arm[0]))
    classes = budget_classes(members)
    reached = {arm: runs for of_class in classes for arm, runs in of_class.arms.items()}
    measured = {name for run in members for name in run.metrics}
    metrics = [metric for metric in RANKED if metric in measured] or headline(members)[:1]
    gains: dict[str, dict[str, SeedInterval]] = {}
    for metric in metrics:
        direction = better(members, metric)
        distances = {arm: distance_from_best(runs, metric, direction) for arm, runs in reached.items()}
        gains[metric] = {
            arm: paired_difference(distances[control], distances[arm])
            for arm, runs in reached.items()
            if arm != control and len(runs[0].records) == len(reached[control][0].records)
        }
    differing = differing_entries(classes)
    usual = classes[0].budget
    what = [f"Budget 1: {_entries(usual, list(differing))}."] + [
        f"Budget {i}, where it differs from 1: {_entries(budget, [n for n in differing if budget[n] != usual[n]])}."
        for i, budget in enumerate((of_class.budget for of_class in classes[1:]), start=2)
    ]
    return Standing(
        family=family,
        control=control,
        rankings={metric: rank(members, metric) for metric in metrics},
        gains=gains,
        budgets={arm: i for i, of_class in enumerate(classes, start=1) for arm in of_class.arms},
        notes=(*(what if differing else []), *refusals(members)),
    )


def _entries(budget: Mapping[str, float], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {budget[name]:,g}" for name in names)


def _order(standing: Standing, metric: str, arm: str) -> tuple[bool, float]:
    if arm == standing.control:
        return False, 0.0
    gain = standing.gains[metric].get(arm)
    known = gain is not None and gain.n > 0
    return not known, -gain.centre if gain is not None and known else 0.0


def _cell(standing: Standing, metric: str, place: Place, ranking: Ranking) -> str:
    gain = standing.gains[metric].get(place.arm)
    if place.arm == standing.control:
        first = "control"
    elif gain is None or not gain.n:
        first = _NOTHING
    else:
        pairs = f" ({gain.n} pairs)" if gain.n != place.value.n else ""
        first = f"{format_interval(metric, gain, signed=True)}{pairs}"
    value = format_interval(metric, place.value) if place.value.n else _NOTHING
    return f"{first}\n{format_rank(place, ranking)}\n{value}"
