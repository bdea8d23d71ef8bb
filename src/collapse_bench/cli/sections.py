"""The tables of a report, for any format."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from collapse_bench.analysis.caveats import MAX_CAVEATS, caveats
from collapse_bench.analysis.formats import escape_latex, to_latex, to_markdown, to_text
from collapse_bench.analysis.runs import Run, group_by_arm, headline
from collapse_bench.analysis.tables import (
    CARD_LEGEND,
    DETECTION_LEGEND,
    NO_PAIRS,
    PAIRED_LEGEND,
    RANKING_LEGEND,
    VERDICT_LEGEND,
    arm_table,
    control_hint,
    format_against_table,
    format_arm_table,
    format_curve_table,
    format_detection_table,
    format_paired_table,
    format_ranking_table,
    format_verdict_table,
    label,
    paired_title,
    ranking_notes,
    refusals,
    verdict_gaps,
    verdict_rules,
    verdict_table,
    zero_note,
)


@dataclass(frozen=True)
class Section:
    """One table of a report, for any format, or what must be known before the tables are read.

    Args:
        title: what the table shows.
        legend: how it is read; may be empty.
        table: as text; ``None`` where there are notes alone.
        notes: what must be read with it, one paragraph each.
    """

    title: str
    legend: str
    table: pd.DataFrame | None
    notes: Sequence[str] = ()


def compose_sections(
    runs: Sequence[Run], *, baseline: str | None = None, across_budgets: bool = False, setting: str | None = None
) -> list[Section]:
    """What must be known before the numbers are read, if there is anything, and all tables of runs that compare.

    Args:
        runs: the runs.
        baseline: arm that all others are compared with; each is compared with its own control by default.
        across_budgets: rank arms of unequal budgets against each other.
        setting: dotted key of a numeric setting that scores are shown against.

    Raises:
        ConfigError: if the setting makes no line.
        RunDirError: if the runs do not compare, or there is no such arm.
    """
    arms = format_arm_table(runs, arm_table(runs))
    paired = format_paired_table(runs, baseline)
    legend = (
        "The mean over seeds with its 95 % t interval, from ten seeds on the interquartile mean with a bootstrap "
        "interval; below each value the change since generation 0."
    )
    notes = [*zero_note(runs), *refusals(runs)]
    if len(group_by_arm(runs)) > 1 and not len(paired):
        notes.append(NO_PAIRS)
    sections = [Section("Before you read the numbers", "", None, warnings)] if (warnings := _warnings(runs)) else []
    sections.append(Section("Each arm at its last generation", legend, arms, notes))
    if len(paired):
        sections.append(Section(paired_title(baseline), PAIRED_LEGEND, paired))
    if len(detection := format_detection_table(runs)):
        sections.append(Section("Detection, and the cost of changed pixels", DETECTION_LEGEND, detection))
    if setting is not None:
        against = format_against_table(runs, setting)
        sections.append(Section(f"Against {setting}, each arm at its last generation", "", against))
    ranking = format_ranking_table(runs, across_budgets=across_budgets)
    notes = [*ranking_notes(runs, across_budgets=across_budgets), CARD_LEGEND]
    sections.append(Section("Ranking and cost", RANKING_LEGEND, ranking, notes))
    # Of the numbers that most runs have, recall sees a collapse first.
    shown = "recall" if "recall" in headline(runs) else headline(runs)[0]
    curve = format_curve_table(runs, shown)
    sections.append(Section(f"Over the generations, {label(shown)}", "All metrics are on the page.", curve))
    verdicts = verdict_table(runs)
    table, hint = format_verdict_table(verdicts), control_hint(verdicts)
    if len(table):
        # A suite has more arms than there are definitions; rows go on over pages, columns do not.
        table = table.T.rename_axis("arm") if table.shape[1] > table.shape[0] else table
        rules = [f"{definition}, yes where {rule}." for definition, rule in verdict_rules().items()]
        gaps = [f"not decidable: {', '.join(names)}: {gap}" for gap, names in verdict_gaps(verdicts).items()]
        sections.append(Section("Verdicts", VERDICT_LEGEND, table, [*rules, *gaps, *filter(None, [hint])]))
    elif hint:
        sections.append(Section("Verdicts", "", None, [hint]))
    return sections


def as_text(sections: Sequence[Section], width: int) -> str:
    """The sections for a terminal of so many columns."""
    parts = []
    for section in sections:
        head = [f"{section.title}.", textwrap.fill(section.legend, width)] if section.legend else [f"{section.title}:"]
        table = [] if section.table is None else ["", to_text(section.table, width)]
        notes = [textwrap.fill(note, width, subsequent_indent="  ") for note in section.notes]
        parts.append("\n".join([*head, *table, *notes]) + "\n")
    return "\n".join(parts)


def as_markdown(sections: Sequence[Section]) -> str:
    """The sections as GitHub reads them."""
    parts = []
    for section in sections:
        table = [] if section.table is None else [to_markdown(section.table)]
        parts += [f"## {section.title}", *filter(None, [section.legend]), *table, *section.notes]
    return "\n\n".join(parts) + "\n"


def as_latex(sections: Sequence[Section]) -> str:
    """The sections as LaTeX tables with captions."""
    parts = ["% Needs \\usepackage{booktabs}. Copy the tables that you need; some are wider or longer than a page."]
    for section in sections:
        words = " ".join([f"{section.title}.", section.legend, *section.notes]).strip()
        if section.table is None:
            parts.append(f"\\paragraph{{{section.title}.}} {escape_latex(' '.join(section.notes))}")
            continue
        caption, tabular = escape_latex(words), to_latex(section.table)
        parts.append(f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n{tabular}\\end{{table}}")
    return "\n\n".join(parts) + "\n"


def _warnings(runs: Sequence[Run]) -> list[str]:
    found = caveats(runs)
    more = len(found) - MAX_CAVEATS
    return [*found[:MAX_CAVEATS], f"And {more} more, which are on the page."] if more > 0 else found
