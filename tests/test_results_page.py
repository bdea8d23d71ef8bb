"""Every command in docs/results.md does what it says."""

import re
import shlex
from pathlib import Path

import pytest

from collapse_bench.cli.report import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "results.md").read_text()
COMMANDS = re.findall(r"^collapse-\S+ .*$", TEXT, flags=re.MULTILINE)
OF_A_SWEEP = ["collapse-report status runs/", "collapse-report runs/"]
MINUTES = ["collapse-report results/2026-11-21_918b228/contamination", "collapse-report verify "]


def test_the_page_has_commands_of_every_kind() -> None:
    assert len(COMMANDS) == 5
    assert all(command in COMMANDS for command in OF_A_SWEEP)  # run on a sweep in tests/cli and tests/analysis


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.slow] if command.startswith(tuple(MINUTES)) else [])
        for command in COMMANDS
        if command not in OF_A_SWEEP
    ],
)
def test_its_commands_on_committed_results_run(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(command)
    assert program == "collapse-report"
    is_verify = arguments[0] == "verify"
    # Always the same cell, so that a failure is one of the code; its numbers must be those of then.
    more = ["--seed", "0"] if is_verify else ["--out", str(tmp_path)]
    status = main([*arguments, *more])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert printed.out.strip()
    assert not is_verify or " 0 apart" in printed.out


def test_every_file_of_a_report_is_in_its_table() -> None:
    named = set(re.findall(r"`([a-z]+\.(?:html|txt|md|tex|csv|parquet))`", TEXT))
    assert {"report.html", "table.txt", "table.md", "table.tex"} <= named
    assert {"summary.csv", "summary.parquet", "scores.parquet"} <= named
