"""The Python API: what a script or a notebook calls."""

import ast
import doctest
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from chains import TINY, TINY_FLOW

import collapse_bench
from collapse_bench.analysis.runs import Run
from collapse_bench.cli.config import as_override, parse_overrides
from collapse_bench.errors import CollapseBenchError, ConfigError, RunDirError

DOC = Path(__file__).parents[2] / "docs" / "python.md"
CHEAP = (*TINY, *TINY_FLOW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of runs, with a cache of its own."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLLAPSE_BENCH_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def chain(folder: Path) -> Run:
    return collapse_bench.run(*CHEAP, regime="augment", seed=1, mitigation="neon", runs_dir=folder / "my runs")


def test_importing_the_package_loads_nothing_and_every_name_is_there() -> None:
    code = (
        "import sys, collapse_bench\n"
        "heavy = {'torch', 'pandas', 'numpy', 'hydra', 'matplotlib', 'collapse_bench.api'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from collapse_bench import find_runs, plot_curves, verdict_table\n"
        "assert not {'torch', 'hydra'} & set(sys.modules)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    for name in collapse_bench.__all__:
        assert getattr(collapse_bench, name).__name__ == name
        assert name in dir(collapse_bench)
    with pytest.raises(AttributeError, match=r"no attribute 'rnu'; it has .*run"):
        collapse_bench.rnu  # noqa: B018


def test_type_checkers_see_the_names_that_are_loaded_lazily() -> None:
    tree = ast.parse(Path(collapse_bench.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module != "typing"]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert seen == collapse_bench._HOME_OF


@pytest.mark.slow
def test_a_run_from_python_is_that_of_the_command_line(chain: Run, folder: Path) -> None:
    assert chain.complete
    assert chain.choices["regime"] == "augment"
    assert chain.info["command"].startswith("collapse-run ")
    command = [sys.executable, "-m", "collapse_bench.cli.run", *CHEAP, "regime=augment", "mitigation=neon", "seed=1"]
    process = subprocess.run(
        [*command, f"runs_dir={folder / 'shell'}", "progress=false"], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    (other,) = collapse_bench.find_runs(folder / "shell")
    assert other.path.name == chain.path.name
    assert [r.deterministic for r in other.records] == [r.deterministic for r in chain.records]


def test_a_complete_run_is_loaded_and_nothing_is_printed(
    chain: Run, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in chain.path.rglob("*")}
    again = collapse_bench.run(*CHEAP, regime="augment", seed=1, mitigation="neon", runs_dir=folder / "my runs")
    assert again.path == chain.path
    assert {path: path.stat().st_mtime_ns for path in chain.path.rglob("*")} == before
    assert capfd.readouterr() == ("", "")


def test_a_run_works_in_a_thread_without_a_terminal_and_leaves_the_number_of_threads(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found: list[Run] = []
    threads = torch.get_num_threads()
    worker = threading.Thread(target=lambda: found.append(collapse_bench.run(*CHEAP, seed=5, runs_dir=folder / "t")))
    worker.start()
    worker.join(timeout=300)
    assert found[0].complete
    assert capfd.readouterr().out == ""
    assert torch.get_num_threads() == threads


def test_progress_is_shown_when_asked_for(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    collapse_bench.run(*CHEAP, "budget.num_generations=0", seed=6, runs_dir=folder / "shown", progress=True)
    assert "generation 0 committed" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["regime=replcae"], ["did you mean replace?"]),
        (["budgt.num_steps=3"], ["did you mean budget.num_steps?"]),
        (["seed=0,1"], ["run() runs one chain", "for each of them"]),
        (["-m"], ["option of the command line"]),
        (["experiment=suite/digits"], ["sweep over many cells", "collapse-run -m"]),
        (["budget.num_steps=-3"], ["budget.num_steps must be at least 1"]),
    ],
)
def test_errors_are_exceptions_with_the_words_of_the_command_line(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(CollapseBenchError) as error:
        collapse_bench.run(*overrides)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "value",
    ["a", "it's", "a b", "x\\", "\\'", "/tmp/my runs", "3", "1e5", "null", "True", "a,b", "[a]", "é", "", "k=v"],
)
def test_a_text_arrives_as_it_is_whatever_its_characters(value: str) -> None:
    (override,) = parse_overrides([f"key={as_override(value)}"])
    parsed = override.value()
    assert getattr(parsed, "text", parsed) == value


def test_values_of_python_become_those_of_the_command_line() -> None:
    values = {
        "null": None,
        "true": True,
        "3": np.int64(3),
        "0.5": np.float32(0.5),
        "[neon,watermark]": ["neon", "watermark"],
        "{share:0.5,of:[a]}": {"share": 0.5, "of": ["a"]},
    }
    assert {as_override(value) for value in values.values()} == values.keys()
    with pytest.raises(ConfigError, match="'KEY=VALUE'"):
        as_override({1, 2})
    with pytest.raises(ConfigError, match="cannot be a key"):
        as_override({"a:1},b": 1})


def test_a_model_is_sampled_by_image_seed(chain: Run) -> None:
    first, last = collapse_bench.load_model(chain, 0), collapse_bench.load_model(chain.path)
    assert (first.generation, last.generation) == (0, 2)
    some, many = first.sample(3, first_seed=7), first.sample(12)
    assert some.images.shape == (3, 8, 8, 1)
    assert some.images.dtype == np.uint8
    assert np.abs(some.images.astype(int) - many.images[7:10]).max() <= 1
    assert (many.labels == -1).all()
    assert not np.array_equal(last.sample(12).images, many.images)


def test_a_sampled_model_is_the_one_that_made_the_grid(chain: Run) -> None:
    from collapse_bench.seeding import RUN_LEVEL, Role, Stream

    seed = int(Stream(chain.seed, RUN_LEVEL, Role.GRID).image_seeds(0, 1))
    for t in (0, 2):  # generation 2 is refined
        again = collapse_bench.load_model(chain, t).sample(16, first_seed=seed).images
        assert np.abs(again.astype(int) - chain.grid(t)).max() <= 1


def test_labels_are_those_that_images_were_made_for(folder: Path) -> None:
    options = ("generator.conditional=true", "budget.num_generations=0", "keep=all")
    conditional = collapse_bench.run(*CHEAP, *options, runs_dir=folder / "conditional")
    labels = collapse_bench.load_model(conditional).sample(40).labels
    assert set(labels.tolist()) <= set(range(10))
    assert len(set(labels.tolist())) > 3


def test_a_model_that_is_not_there_says_which_are(chain: Run) -> None:
    for generation in (1, 9, -1):
        with pytest.raises(RunDirError, match=rf"no model of generation {generation}, but of 0, 2; .*keep=all"):
            collapse_bench.load_model(chain, generation)
    with pytest.raises(ConfigError, match="at least one image"):
        collapse_bench.load_model(chain, 0).sample(0)


def test_the_code_of_a_strangers_run_is_not_run(chain: Run, tmp_path: Path) -> None:
    import shutil

    import yaml

    copied = tmp_path / "strange"
    shutil.copytree(chain.path, copied)
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["mitigation"]["refiner"] = {"_target_": "os.system", "command": "touch broken"}
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"os\.system, code outside collapse_bench; .*trust=True"):
        collapse_bench.load_model(copied)


@pytest.mark.slow
def test_the_examples_of_the_page_give_what_it_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block is run as it stands, but on a smaller budget and fewer images, which show only in the counts."""
    small = json.dumps([*CHEAP])[1:-1]
    text = DOC.read_text().replace(
        '"budget.num_generations=2", "budget.num_steps_initial=300", "budget.num_steps=60"', small
    )
    text = text.replace(
        "{'real': 897}, {'gen_000': 897}, {'gen_001': 897}", "{'real': 64}, {'gen_000': 40}, {'gen_001': 40}"
    )
    assert text.count("\n>>> ") >= 15
    assert small in text
    monkeypatch.chdir(folder)
    examples = doctest.DocTestParser().get_doctest(text.replace("```", ""), {}, "python.md", str(DOC), 0)
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
    assert results.failed == 0, capsys.readouterr().out
    assert (folder / "curves.pdf").stat().st_size > 1000
    assert os.environ["COLLAPSE_BENCH_CACHE"] == str(folder / "cache")
