"""What is to be known of a set of runs before their numbers are read."""

import math
from collections.abc import Sequence

import pandas as pd

from collapse_bench.analysis.runs import Run, group_by_arm, headline, usual_settings
from collapse_bench.records import Score

MAX_DUPLICATES = 0.05
"""Share of samples that repeat another one, above which recall is not to be trusted."""

MAX_CAVEATS = 6
"""As many are shown at once; the page unfolds the others."""


def caveats(runs: Sequence[Run]) -> list[str]:
    """What keeps the numbers of these runs from being read at once, one sentence each; runs that were refused are none.

    Raises:
        RunDirError: if the runs do not compare.
    """
    runs = [run for run in runs if run.refused is None]
    arms = group_by_arm(runs)
    found = []
    if usual := usual_settings(runs):
        settings = ", ".join(f"{key}={value}" for key, value in usual.items())
        found.append(f"Where the name of an arm does not say otherwise: {settings}.")
    if any(run.choices.get("budget") == "smoke" for run in runs):
        found.append(
            "Runs with budget=smoke try things out: their models are undertrained and no number means anything."
        )
    if mixed := [arm for arm, members in arms.items() if len({_code(run) for run in members}) > 1]:
        found.append(f"Runs of different versions of the code are averaged in {_arms(mixed)}.")
    if len({tuple(run.seed for run in members) for members in arms.values()}) > 1:
        found.append("The arms have different seeds; differences are taken over the seeds that two arms share.")
    if len({score.num_samples for score in headline_scores(runs)}) > 1:
        found.append(
            "Different numbers of images were measured; metrics with a sample bias (FID first) do not compare then."
        )
    if repeating := [arm for arm, members in arms.items() if any(_repeats(run) for run in members)]:
        found.append(
            f"In {_arms(repeating)} samples repeat each other pixel by pixel. Recall counts neighbours among different "
            "samples and rises with repeats: look at coverage and duplicates there."
        )
    if shifted := _beyond_the_floor(runs):
        found.append(
            "Real control images score beyond three standard deviations of the floor: "
            f"{shifted}. The images that models are fitted to may have another law than the reference; a "
            "perfect model of them would score as the control set does."
        )
    if judges := [arm for arm, members in arms.items() if any(_chooses_by_what_measures(run) for run in members)]:
        found.append(
            f"In {_arms(judges)} images are chosen by the features of the first encoder that measures: a part of its "
            "scores is its own objective. See those of other features as well, as of encoder=[pca,classifier]."
        )
    table = environments(runs)
    if len(table.columns) > 1:
        differing = [str(name) for name in table.index[table.nunique(axis=1) > 1]]
        found.append(
            f"The runs were made in {len(table.columns)} environments, which differ in {', '.join(differing)}; the "
            "page has them under “Commands and versions”."
        )
    for run in runs:
        if not run.complete:
            reached = f"generation {len(run.records) - 1}" if run.records else "no generation"
            why = f": {run.status['error']}" if run.status.get("error") else ""
            found.append(f"{run.path} is incomplete ({run.status['state']}, reached {reached}){why}")
    return found


def environments(runs: Sequence[Run]) -> pd.DataFrame:
    """Commits, versions and machines: a row per entry, a column per combination that occurs, named by its count."""
    found: dict[tuple[tuple[str, str], ...], int] = {}
    for run in runs:
        code = {"commit": run.info.get("commit") or "not recorded", "code (hash of the sources)": _code(run)}
        settings = {**code, **run.info.get("versions", {}), **run.info.get("machine", {})}
        key = tuple((str(name), str(value)) for name, value in settings.items())
        found[key] = found.get(key, 0) + 1
    names = list(dict.fromkeys(name for key in found for name, _ in key))
    columns = [[dict(key).get(name, "") for name in names] for key in found]
    table = pd.DataFrame(columns, columns=pd.Index(names, name="version or machine")).T
    table.columns = [f"{count} runs" if count > 1 else "1 run" for count in found.values()]
    return table


def headline_scores(runs: Sequence[Run]) -> list[Score]:
    """The scores of fresh samples in the headline metrics, of all generations."""
    names = headline(runs)
    return [
        score
        for run in runs
        for record in run.records
        for score in record.scores
        if score.of == "model" and score.metric in names
    ]


def _code(run: Run) -> str:
    return str(run.info["identity"].get("code", ""))


def _repeats(run: Run) -> bool:
    return bool(run.records) and run.value(len(run.records) - 1, "duplicates") > MAX_DUPLICATES


def _beyond_the_floor(runs: Sequence[Run]) -> str:
    """Metrics whose control set scores far from the floor, with both numbers."""
    found = []
    for metric in headline(runs):
        of_runs = [(run.value(0, metric, "control"), run.floor(metric), run.floor_spread(metric)) for run in runs]
        control, floor, spread = next((of for of in of_runs if all(map(math.isfinite, of))), (0.0, 0.0, 0.0))
        if abs(control - floor) > 3 * spread > 0:
            found.append(f"{metric} {control:.3g} beside {floor:.3g} ± {spread:.2g}")
    return ", ".join(found)


def _chooses_by_what_measures(run: Run) -> bool:
    """Whether the features of the curator, or of its probe, are those of the first encoder that measures."""
    curator = run.config.get("mitigation", {}).get("curator", {})
    chooses_by = [part["features"] for part in (curator, curator.get("probe")) if part and part.get("features")]
    measures_by = [encoder.get("features", encoder) for encoder in run.config.get("encoder", {}).values()]
    return measures_by[:1] in [[features] for features in chooses_by]


def _arms(names: Sequence[str]) -> str:
    return "; ".join(names) if len(names) <= MAX_CAVEATS else f"{len(names)} arms, {names[0]} among them"
