import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from collapse_bench.analysis.report import write_report
from collapse_bench.analysis.runs import HEADLINE, find_runs, group_by_arm, load_run
from collapse_bench.analysis.tables import direction, label, verdict_rules
from collapse_bench.cli.report import main


class Page(HTMLParser):
    """Collects the addresses, images, sections, header cells and table cells of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses, self.tags, self.open = [], [], []
        self.images, self.scopes, self.targets = [], [], []
        self.headings: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.regions: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(tag)
        if tag == "img":
            self.images.append(found["alt"])
        if tag == "th":
            self.scopes.append(found.get("scope"))
        if "id" in found:
            self.targets.append(found["id"])
        if tag == "h2":
            self.headings.append("")
        if found.get("aria-label"):
            self.regions.append(found["aria-label"])
        rows = self.rows.setdefault(self.regions[-1] if self.regions else "", [])
        if tag == "tr":
            rows.append([])
        if tag in ("th", "td") and rows:
            rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "h2" in self.open:
            self.headings[-1] += data
        rows = self.rows.get(self.regions[-1] if self.regions else "", [])
        if {"th", "td"} & set(self.open) and rows:
            rows[-1][-1] += data


@pytest.fixture(scope="module")
def page(sweep, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    return write_report(find_runs(sweep), path).read_text(encoding="utf-8")


def test_the_page_is_self_contained(page):
    parsed = Page(page)
    assert parsed.addresses
    assert all(address.startswith(("data:image/", "#")) for address in parsed.addresses)
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_every_element_is_closed_every_image_described_and_every_header_has_a_scope(page):
    parsed = Page(page)
    assert parsed.open == []
    assert all(len(words) >= 20 for words in parsed.images)
    assert set(parsed.scopes) == {"row", "col"}


def test_every_section_is_there_and_can_be_reached(page):
    parsed = Page(page)
    assert parsed.headings == [
        "Scores",
        "Ranking",
        "Over the generations",
        "Verdicts",
        "Samples",
        "Class shares",
        "Provenance",
        "Resources",
        "Configuration",
        "Commands and versions",
        "How far these numbers carry",
    ]
    links = {address.removeprefix("#") for address in parsed.addresses if address.startswith("#")}
    assert links == set(parsed.targets)
    assert len(parsed.targets) == len(parsed.headings)


def test_the_page_says_what_was_run_and_how_far_it_carries(page, sweep):
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
    images, runs = Page(page).images, find_runs(sweep)
    assert [words for words in images if "over generations" in words] == [
        f"{label(metric)} over generations, {direction(runs, metric)}: a curve per arm, and the real-vs-real floor"
        for metric in HEADLINE
    ]
    # A row of real images and one per generation of each arm; and what both end with, below generation 0 and reals.
    assert len([words for words in images if words.startswith("Samples of ")]) == 2 * (1 + 4)
    assert len([words for words in images if words.startswith("Samples, ")]) == 2 + 2
    for words in ("Heat map: the headline", "A row per arm", "Stacked bars", "Heat maps of class shares", "Legend"):
        assert len([image for image in images if image.startswith(words)]) == 1


def test_arms_with_a_control_have_verdicts_and_arms_without_have_a_hint(make_run, page, tmp_path):
    assert "<h2>Verdicts</h2>" in page
    assert "regime=real mitigation=control" in page
    assert "What each verdict stands on" not in page
    options = {"grids": False, "metrics": ["recall", "precision"]}
    runs = [
        load_run(make_run(f"{regime}{seed}", seed=seed, decay=decay, choices={"regime": regime}, **options))
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
    path = make_run("a", reached=1, metrics=["fid", "recall"])
    status = {"state": "failed", "generation": 1, "error": "the loss became <NaN>"}
    (path / "status.json").write_text(json.dumps(status))
    page = write_report([load_run(path)], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "is incomplete (failed, reached generation 1): the loss became &lt;NaN&gt;" in page
    assert "n = 1" in page
    # One arm has nothing to be compared with, and no option would change that.
    assert "Difference to" not in page
    assert "--baseline" not in page
    Page(page)


def test_runs_without_pictures_or_classes_still_have_a_page(make_run, tmp_path):
    runs = [load_run(make_run("a", grids=False, metrics=["fid", "recall"]))]
    page = write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = Page(page)
    assert not {"Samples", "Class shares"} & set(parsed.headings)
    assert 'href="#samples"' not in page  # nor does the summary speak of them
    # The legend, the two curves and the pools: one arm is not compared with itself.
    assert len(parsed.images) == 1 + 2 + 1


# Of the eleven headline metrics, because a page of many arms is mostly curves.
METRICS_OF_MANY = ["fid", "precision", "recall", "class_kl"]


@pytest.fixture(scope="module")
def many(write_run_in, tmp_path_factory):
    """Twelve arms: a control, eight regimes, and three mitigations; two seeds each; and a cell that was refused."""
    root = tmp_path_factory.mktemp("many")
    chosen = [{"regime": "real"}, {"regime": "replace"}, *({"regime": f"regime_{i}"} for i in range(7))]
    chosen += [{"mitigation": f"mitigation_{i}"} for i in range(3)]
    for i, choices in enumerate(chosen):
        for seed in range(2):
            options = {"decay": 0.001 + 0.02 * i, "num_generations": 2}
            # Without figures; some verdict is a "yes" by the tails, and some a "no" by the entanglement.
            options["metrics"] = [*METRICS_OF_MANY, "tail_coverage", "lowest_class_share", "entanglement"]
            write_run_in(root, f"{i}-{seed}", seed=seed, choices=choices, **options)
    refused = write_run_in(root, "refused", choices={"mitigation": "senseless"}, num_generations=2)
    for folder in refused.glob("gen_*"):
        shutil.rmtree(folder)
    (refused / "status.json").write_text(json.dumps({"state": "refused", "error": "makes no sense"}))
    return find_runs(root)


@pytest.fixture(scope="module")
def page_of_many(many, tmp_path_factory):
    return write_report(many, tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")


def test_the_verdict_matrix_has_every_arm_and_definition(many, page_of_many):
    head, *rows = Page(page_of_many).rows["Verdicts: arms by definitions of collapse"][: 1 + 13]
    assert head == ["arm", *verdict_rules()]
    decisions = {name: cells for name, *cells in rows}
    assert list(decisions) == [*group_by_arm(many), "replace, senseless"]
    assert set(decisions["real, control"]) == {"control"}
    assert set(decisions["replace, senseless"]) == {"n/a"}
    judged = {
        cell for name in decisions if name not in ("real, control", "replace, senseless") for cell in decisions[name]
    }
    assert {"yes", "no"} <= judged <= {"yes", "no", "not decidable"}


def test_many_arms_have_a_panel_each_and_the_page_stays_small(page_of_many):
    images = Page(page_of_many).images
    assert len([words for words in images if "a small panel per arm" in words]) == len(METRICS_OF_MANY)
    assert not [words for words in images if words.startswith("Legend")]
    assert len(page_of_many.encode()) < 6e6 * len(METRICS_OF_MANY) / len(HEADLINE)


def test_many_incomplete_runs_are_counted_and_do_not_fill_the_page(make_run, tmp_path):
    runs = [load_run(make_run(f"r{seed}", seed=seed, reached=1, grids=False, metrics=["fid"])) for seed in range(9)]
    page = write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "and 3 more" in page
    assert page.count(" is incomplete (running, reached generation 1)") == 9


def test_the_same_command_of_several_runs_is_shown_once(make_run, tmp_path):
    for seed in range(2):
        path = make_run(f"runs/r{seed}", seed=seed, grids=False, metrics=["fid"])
        info = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(json.dumps(info | {"command": "collapse-run -m seed=0,1", "commit": "abc123"}))
    page = write_report(find_runs(tmp_path / "runs"), tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<pre>collapse-run -m seed=0,1</pre>") == 1
    assert "abc123" in page


def test_the_command_prints_the_table_and_says_where_everything_went(make_run, tmp_path, capsys):
    for regime in ("replace", "accumulate"):
        make_run(f"runs/{regime}", choices={"regime": regime}, grids=False, metrics=["fid", "recall"])
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "real-vs-real floor" in printed
    assert "accumulate" in printed
    assert "No verdict on replace; accumulate: the control C0 is missing" in printed
    for file in ("report.html", "scores.parquet", "table.md", "figures/curves.png"):
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
