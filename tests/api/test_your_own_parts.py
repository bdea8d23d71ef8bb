"""Parts of a user's, from a module and a folder outside this package: the very files and commands of the page."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW

from collapse_bench.errors import ConfigError, RunDirError
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.testing import promises
from collapse_bench.testing.promises import Option

PAGE = (Path(__file__).parents[2] / "docs" / "your_own_parts.md").read_text()
FILES = dict(re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)```", PAGE, flags=re.MULTILINE | re.DOTALL))
(COMMANDS,) = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
# Not the size of the real pool, which the data set of the page decides.
CHEAP = [*(option for option in TINY if option != "dataset.num_real=64"), *TINY_FLOW, "progress=false"]
OWN = ("--config-dir", "my_conf")


def write_files(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def call(folder: Path, *command: str, found: bool = True) -> subprocess.CompletedProcess[str]:
    """A command in a folder with its parts, of which Python finds the module or not."""
    environment = {**os.environ, "COLLAPSE_BENCH_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    environment["PYTHONPATH"] = "." if found else ""
    modules = {"collapse-run": "collapse_bench.cli.run", "collapse-report": "collapse_bench.cli.report"}
    # -P: like a console script, and unlike -m, it does not look for modules in the working folder.
    program = [sys.executable, "-P", "-m", modules.get(command[0], command[0])]
    line = [*program, *command[1:]]
    return subprocess.run(line, capture_output=True, text=True, cwd=folder, env=environment, timeout=600)


def run_with_source(folder: Path, *arguments: str) -> tuple[str, dict]:
    """The output of a run of the page's mitigation, and the ``run.json`` that it wrote last."""
    process = call(folder, "collapse-run", *OWN, "mitigation=ink_matching", *CHEAP, "dataset.num_real=64", *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    last = max(folder.glob("runs/*/run.json"), key=lambda path: path.stat().st_mtime_ns)
    return process.stdout, json.loads(last.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("mine"))


def test_the_page_has_a_part_of_each_kind_and_their_tests() -> None:
    assert set(FILES) == {
        "my_parts.py",
        "my_conf/mitigation/ink_matching.yaml",
        "my_conf/regime/alternate.yaml",
        "my_conf/dataset/bars.yaml",
        "my_conf/metrics/ink.yaml",
        "test_my_parts.py",
    }
    assert set(FILES) == set(re.findall(r"^(\S+\.\w+) ", PAGE.replace("yaml\n", "yaml \n"), flags=re.MULTILINE))


@pytest.mark.slow
def test_the_options_are_in_the_help_and_in_the_errors(folder: Path) -> None:
    helped = call(folder, "collapse-run", *OWN, "--help")
    assert helped.returncode == 0, helped.stderr
    for option in ("ink_matching", "alternate", "bars", "ink"):
        assert re.search(rf"\b{option}\b", helped.stdout), option
    for wrong, words in {
        "mitigation=ink_matchin": "did you mean ink_matching?",
        "regime=alternat": "did you mean alternate?",
        "metrics=[headline,inc]": "did you mean ink?",
    }.items():
        refused = call(folder, "collapse-run", *OWN, wrong)
        assert refused.returncode == 1
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr
    misspelt = call(folder, "collapse-run", "--config-dir=my_conf", "regime=alternate", "regime.evry=3")
    assert "did you mean regime.every?" in misspelt.stderr


@pytest.mark.slow
def test_a_folder_or_module_that_is_not_found_is_named_with_the_remedy(folder: Path) -> None:
    absent = call(folder, "collapse-run", "--config-dir", "my_cnf", "mitigation=ink_matching")
    assert "error: --config-dir my_cnf: there is no folder" in absent.stderr
    assert "give one: --config-dir FOLDER" in call(folder, "collapse-run", "--config-dir").stderr
    hidden = call(folder, "collapse-run", *OWN, "mitigation=ink_matching", *CHEAP, found=False)
    assert hidden.returncode == 1
    assert "install my_parts, or name its folder: PYTHONPATH=FOLDER" in hidden.stderr
    assert not (folder / "runs").exists()


def test_an_option_with_the_name_of_one_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "regime").mkdir()
    (tmp_path / "regime" / "replace.yaml").write_text(FILES["my_conf/regime/alternate.yaml"])
    with pytest.raises(ConfigError, match=r"regime/replace\.yaml has the name of an option of collapse-bench"):
        promises.options("regime", tmp_path)


@pytest.mark.slow
def test_an_edited_part_is_another_run_and_reuses_no_fit_that_it_decides(tmp_path: Path) -> None:
    write_files(tmp_path)
    output, first = run_with_source(tmp_path)
    assert first["choices"]["mitigation"] == "ink_matching"
    assert first["command"].startswith("collapse-run --config-dir my_conf mitigation=ink_matching")
    source = first["identity"]["mitigation.curator._source_"]
    output, _ = run_with_source(tmp_path)
    assert "complete already, skipped" in output
    module = tmp_path / "my_parts.py"
    module.write_text(
        module.read_text().replace(
            "(wanted[:, None] - ink(candidates.images)).abs()", "-wanted[:, None] * ink(candidates.images)"
        )
    )
    output, second = run_with_source(tmp_path)
    assert "skipped" not in output
    assert second["identity"]["mitigation.curator._source_"] != source
    assert len(list(tmp_path.glob("runs/*"))) == 2
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("runs/*/gen_*/record.json"))]
    assert sum(record["spent"]["reused"] == ["fit"] for record in records) == 1, "generation 0, which owes it nothing"


BROKEN = '''
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from collapse_bench.mitigations.base import Curator, Weigher
from collapse_bench.mitigations.selection import Selection
from collapse_bench.pool import Pool
from collapse_bench.regimes.base import Regime


@dataclass(frozen=True)
class LooksFurtherBack(Regime):
    """Looks at two pools and says that it looks at one."""

    def compose(self, now):
        return Pool.concat([now.chain.kept(t) for t in range(max(0, now.generation - 2), now.generation)])


@dataclass(frozen=True, kw_only=True)
class DrawsFromGlobalState(Selection):
    """Is another one each time."""

    reason: ClassVar[str] = "by chance"

    def select(self, candidates, num_needed, draw, now):
        return torch.randperm(len(candidates))[:num_needed]


@dataclass(frozen=True, kw_only=True)
class ChangesCandidates(Selection):
    """Paints what it is given."""

    reason: ClassVar[str] = "painted"

    def select(self, candidates, num_needed, draw, now):
        candidates.images.zero_()
        return torch.arange(num_needed)


@dataclass(frozen=True, kw_only=True)
class CorrectsInSecret(Curator):
    """Changes images and does not say so."""

    candidates_per_kept: float

    def choose(self, draw, num_needed, now):
        candidates = draw(num_needed)
        return replace(candidates, images=255 - candidates.images).take(torch.arange(num_needed), because="negative")


SEEN = []


@dataclass(frozen=True, kw_only=True)
class LearnsFromMeasuring(Weigher):
    """Remembers how bright the images were that the measuring side asked about."""

    brightness: float

    def flags(self, images, now):
        SEEN.append(images.double().mean())
        return torch.zeros(len(images), dtype=torch.bool)

    def weigh(self, train, now):
        likeness = (train.images.double().flatten(1).mean(1) - (SEEN[-1] if SEEN else self.brightness)).abs()
        return 1.0 / (1.0 + likeness)


class NotFrozen:
    def __init__(self, candidates_per_kept: float) -> None:
        self.candidates_per_kept = candidates_per_kept
'''


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of options that break what they promise."""
    (tmp_path / "broken_parts.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    curator = "# {}\ncurator:\n  _target_: broken_parts.{}\n  candidates_per_kept: 2.0\n"
    for option, content in {
        "regime/back.yaml": "# Looks further back than it says.\n_target_: broken_parts.LooksFurtherBack\n",
        "mitigation/chance.yaml": curator.format("Draws from the global random state.", "DrawsFromGlobalState"),
        "mitigation/paints.yaml": curator.format("Changes what it is given.", "ChangesCandidates"),
        "mitigation/negative.yaml": curator.format("Changes images and does not say so.", "CorrectsInSecret"),
        "mitigation/peeks.yaml": "weigher:\n  _target_: broken_parts.LearnsFromMeasuring\n  brightness: 60.0\n",
        "mitigation/thawed.yaml": curator.format("Short.", "NotFrozen"),
        "mitigation/hides.yaml": "curator:\n  _target_: broken_parts.DrawsFromGlobalState\n",
    }.items():
        (tmp_path / "conf" / option).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / option).write_text(content)
    return tmp_path / "conf"


@pytest.mark.slow
def test_a_broken_promise_is_found(broken: Path, tmp_path: Path) -> None:
    tiny = (*TINY, *TINY_FLOW)
    with pytest.raises(AssertionError, match="says too little"):
        promises.says_what_it_is(Option("mitigation", "thawed", broken))
    with pytest.raises(AssertionError, match="no comment that says what"):
        promises.says_what_it_is(Option("mitigation", "hides", broken))
    with pytest.raises(AssertionError, match="NotFrozen is no frozen dataclass"):
        promises.can_be_hashed(Option("mitigation", "thawed", broken))
    with pytest.raises(AssertionError, match="candidates_per_kept"):
        promises.shows_every_argument(Option("mitigation", "hides", broken))
    with pytest.raises(AssertionError):
        promises.gives_the_same_again(tmp_path / "chance", *tiny, "mitigation=chance", config_dir=broken)
    back = (*tiny, "regime=back", "budget.num_generations=3")
    with pytest.raises(RunDirError, match="cannot read the pool"):
        promises.gives_the_same_again(tmp_path / "back", *back, config_dir=broken)


def test_a_mitigation_that_breaks_a_promise_is_found(broken: Path) -> None:
    tiny = (*TINY, *TINY_FLOW, "budget.num_generations=1")
    with pytest.raises(AssertionError, match="ChangesCandidates changes the candidates"):
        promises.tried(Option("mitigation", "paints", broken), *tiny, measured=False)
    negative = promises.tried(Option("mitigation", "negative", broken), *tiny, measured=False)
    with pytest.raises(AssertionError, match="set changes_images = True"):
        promises.kept_images_are_what_their_seeds_give(negative)
    peeks = promises.tried(Option("mitigation", "peeks", broken), *tiny, measured=False)
    with pytest.raises(AssertionError, match=r"another gen_00\d/fitted"):
        promises.gives_the_same_whatever_is_held_out(peeks)


class _Noisy(GenerativeMetric):
    columns = ("features",)

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        return {"noisy": Estimate(torch.rand(()).item(), "lower")}


class _Forgetful(GenerativeMetric):
    columns = ("features",)

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        return {"mean": Estimate(self.once("generated", lambda: generated.features.mean().item()), "upwards")}


def test_a_broken_promise_of_a_metric_is_found() -> None:
    sides = promises.images_of_all_sides()
    with pytest.raises(AssertionError):
        promises.computing_changes_nothing(_Noisy(), sides)
    with pytest.raises(AssertionError):
        promises.reset_forgets_generated_images_alone(_Forgetful(), sides)
    with pytest.raises(AssertionError, match="better='upwards'"):
        promises.numbers_are_well_formed(_Forgetful(), sides)


@pytest.mark.slow
def test_every_command_of_the_page_runs_and_its_tests_pass(folder: Path) -> None:
    lines = COMMANDS.strip().splitlines()
    assert lines[0] == "export PYTHONPATH=."
    for line in lines[1:]:
        program, *arguments = shlex.split(line)
        if program == "collapse-run":
            arguments += [*CHEAP] if "dataset=bars" in arguments else [*CHEAP, "dataset.num_real=64"]
        if program == "pytest":
            arguments += ["-q", "-p", "no:cacheprovider", "-W", "error"]
        arguments = [path for a in arguments for path in (sorted(map(str, folder.glob(a))) if "*" in a else [a])]
        process = call(folder, program, *arguments)
        assert process.returncode == 0, f"{line}\n{process.stdout}\n{process.stderr}"
        assert "Traceback" not in process.stderr
    assert re.search(r"\d\d passed", process.stdout)
    assert len(list((folder / "runs").glob("bars-flow-*-control-seed*/run.json"))) == 4
    record = json.loads(next((folder / "runs").glob("bars-*/gen_002/record.json")).read_text())
    assert {score["metric"] for score in record["scores"]} >= {"ink_gap", "recall"}
