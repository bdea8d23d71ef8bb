import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from collapse_bench.analysis.report import write_report
from collapse_bench.analysis.runs import HEADLINE, find_runs, load_run
from collapse_bench.cli.report import main


class Page(HTMLParser):
    """Collects the addresses, tags and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses, self.tags, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(sweep, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    return write_report(find_runs(sweep), path).read_text(encoding="utf-8")


def test_the_page_is_self_contained(page):
    parsed = Page(page)
    assert parsed.addresses
    assert all(address.startswith("data:image/") for address in parsed.addresses)
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_every_element_is_closed_and_every_image_described(page):
    assert Page(page).open == []
    assert page.count("<img ") == len(re.findall(r'alt="[^"]{20,}"', page))


def test_the_page_says_what_was_run_and_how_far_it_carries(page):
    for words in (
        "digits · flow · euler_20",
        "replace; accumulate",
        "collapse-run regime=accumulate seed=2",
        "real-vs-real floor",
        "one split of the real images and one encoder",
        "Student&#39;s t interval",
        "regime._<wbr>target_<wbr>",
        "2.15.0",
        "gradient steps",
    ):
        assert words in page
    # A legend, one panel per headline metric, samples and class shares per arm.
    assert page.count("<img ") == 1 + len(HEADLINE) + 2 + 2


def test_arms_with_a_control_have_verdicts_and_arms_without_have_a_hint(make_run, page, tmp_path):
    assert "<h2>Verdicts</h2>" in page
    assert "regime=real mitigation=control" in page
    assert "What each verdict stands on" not in page
    runs = [
        load_run(make_run(f"{regime}{seed}", seed=seed, decay=decay, choices={"regime": regime}, grids=False))
        for regime, decay in (("replace", 0.1), ("real", 0.001))
        for seed in range(2)
    ]
    judged = write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "regime=real mitigation=control" not in judged
    for words in ("What each verdict stands on", "hallucinated data", "thresholds x 1.5", "not shown at this level"):
        assert words in judged
    assert Page(judged).open == []


def test_the_command_prints_curves_and_verdicts_and_why_some_are_not_decidable(make_run, tmp_path, capsys):
    for regime, decay in (("replace", 0.1), ("real", 0.001)):
        for seed in range(2):
            name = f"runs/{regime}{seed}"
            make_run(name, seed=seed, decay=decay, choices={"regime": regime}, grids=False, metrics=["fid", "recall"])
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "Over the generations, recall" in printed
    assert "hallucinated data" in printed
    assert "not decidable: hallucinated data: precision was not measured" in printed
    assert "No verdict on" not in printed
    assert "| hallucinated data |" in (tmp_path / "out" / "table.md").read_text()


def test_equal_runs_give_equal_pages(sweep, page, tmp_path):
    again = write_report(find_runs(sweep), tmp_path / "again.html").read_text(encoding="utf-8")
    assert again == page


def test_incomplete_runs_and_single_seeds_are_said_first(make_run, tmp_path):
    path = make_run("a", reached=1)
    status = {"state": "failed", "generation": 1, "error": "the loss became <NaN>"}
    (path / "status.json").write_text(json.dumps(status))
    page = write_report([load_run(path)], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "is incomplete (failed, reached generation 1): the loss became &lt;NaN&gt;" in page
    assert "n = 1" in page
    assert "Difference to the arm" not in page
    Page(page)


def test_runs_without_pictures_or_classes_still_have_a_page(make_run, tmp_path):
    runs = [load_run(make_run("a", grids=False, metrics=["fid", "recall"]))]
    page = write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Samples</h2>" not in page
    assert "<h2>Class shares</h2>" not in page
    assert page.count("<img ") == 1 + 2


def test_the_command_prints_the_table_and_says_where_everything_went(sweep, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(sweep), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "real-vs-real floor" in printed
    assert "accumulate" in printed
    assert "No verdict on replace; accumulate: the control C0 is missing" in printed
    for file in ("report.html", "scores.csv", "table.md", "figures/curves.png"):
        assert (out / file).stat().st_size > 0
    assert str(out / "report.html") in printed


def test_the_command_writes_to_reports_by_default(make_run, tmp_path, capsys, monkeypatch):
    make_run("mine/r0", num_generations=1, grids=False, metrics=["fid"])
    monkeypatch.chdir(tmp_path)
    assert main(["mine"]) == 0
    assert (tmp_path / "reports" / "mine" / "report.html").exists()
    assert "reports/mine/report.html" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["nothing there", "no runs", "damaged", "mixed encoders", "unknown baseline"])
def test_errors_are_one_line_and_exit_status_1(case, make_run, tmp_path, capsys):
    make_run("runs/one", encoder="aaaa")
    arguments = [str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    if case == "nothing there":
        arguments[0] = str(tmp_path / "nowhere")
    elif case == "no runs":
        arguments[0] = str(tmp_path / "runs" / "one" / "gen_000")
    elif case == "damaged":
        (tmp_path / "runs" / "one" / "run.json").write_text("{")
    elif case == "mixed encoders":
        make_run("runs/two", seed=1, encoder="bbbb")
    else:
        arguments += ["--baseline", "nothing"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("collapse-report: ")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_analysis_and_the_report_command_import_no_torch():
    code = (
        "import collapse_bench.analysis.report, collapse_bench.analysis.runs, collapse_bench.analysis.statistics, "
        "collapse_bench.analysis.tables, collapse_bench.analysis.figures, collapse_bench.cli.report, sys; "
        "loaded = {'torch', 'hydra', 'matplotlib.pyplot'} & set(sys.modules); assert not loaded, loaded; print('none')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == ("none", "")
