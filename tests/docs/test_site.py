"""The documentation lists every option, builds without a warning, and loads nothing from elsewhere."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from chains import TINY, TINY_FLOW
from commands import call

from collapse_bench.cli.config import check_command_line

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OPTIONS = sorted(path.relative_to(ROOT / "conf") for path in (ROOT / "conf").glob("*/**/*.yaml"))
PARTS = [option for option in OPTIONS if option.parts[0] != "experiment"]
SMALL = [*TINY, *TINY_FLOW, "budget.num_generations=1", "progress=false"]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The hook that makes pages."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def leaves(node: object, path: str = "") -> set[str]:
    """Dotted names of all keys of a file that a user can set."""
    if not isinstance(node, dict) or not node:
        return {path.removeprefix(".")}
    skipped = ("_target_", "defaults", "hydra")
    return {leaf for key, value in node.items() if key not in skipped for leaf in leaves(value, f"{path}.{key}")} - {""}


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_option_is_listed_with_a_description_and_all_its_keys(option: Path, generate: ModuleType) -> None:
    file = ROOT / "conf" / option
    read = generate.read_option(file)
    assert len(read.description) > 15
    names = {key.name for key in read.keys}
    assert all(any(name == leaf or name.endswith(f".{leaf}") for name in names) for leaf in leaves(_content(file)))
    group = option.parent.as_posix()
    if group.startswith("experiment"):
        page = generate.experiments_page()
        assert f"\n## {group}/{option.stem}\n".replace("experiment/", "") in page
    else:
        page = generate.options_page(group)
        assert f"\n## {option.stem}\n" in page
    assert read.description in page


@pytest.mark.parametrize("option", PARTS, ids=str)
def test_every_key_of_every_part_says_what_it_is_and_of_which_type(option: Path, generate: ModuleType) -> None:
    read = generate.read_option(ROOT / "conf" / option)
    assert not [key.name for key in read.keys if not key.comment]
    single = [key for key in read.keys if not key.default.startswith(("a ", "${")) and key.default]
    assert not read.classes or not [key.name for key in single if not key.type]
    assert read.classes or read.choices
    for cls in read.classes:
        assert f"{cls.__module__}.{cls.__qualname__}" in generate.options_page(option.parent.as_posix())


def _content(file: Path) -> object:
    return yaml.safe_load(file.read_text())


def test_a_key_has_its_default_type_and_comment(generate: ModuleType) -> None:
    keys = {key.name: key for key in generate.read_option(ROOT / "conf/generator/flow.yaml").keys}
    key = keys["generator.optimisation.batch_size"]
    assert (key.default, key.type, key.comment) == ("128", "int", "images per gradient step")
    assert keys["generator.start"].type == "warm, scratch"
    assert keys["generator.optimisation.ema_decay"].type == "float | null"
    with_own_package = {key.name for key in generate.read_option(ROOT / "conf/encoder/pixels.yaml").keys}
    assert with_own_package == {"encoder.pixels.num_components"}


def test_cells_are_counted(generate: ModuleType) -> None:
    cells = {}
    for title, number in re.findall(r"^## (\S+)$.*?^Cells: (\d+)\.$", generate.experiments_page(), flags=re.M | re.S):
        cells[title] = int(number)
    assert (cells["suite/digits"], cells["suite/mnist_vae"], cells["capacity"], cells["gaussian"]) == (133, 45, 12, 1)
    assert cells["suite/biased_reference"] == 36, "a list is one value"
    assert cells["sampling_bias"] == 42, "two sweeps"


def test_every_group_of_options_and_every_page_is_in_the_navigation(generate: ModuleType) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    generated = {f"options/{g.replace('/', '_')}.md" for g in generate.groups() if "experiment" not in g}
    written = {page.name for page in DOCS.glob("*.md") if not page.name.endswith(".in.md")}
    assert set(re.findall(r"\S+\.md$", navigation, flags=re.M)) == {
        "experiments.md",
        *generated,
        *written,
        *(page for page in generate.reference_pages()),
    }


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


def test_the_commands_of_the_quick_start_are_commands_of_the_readme_where_they_are_run() -> None:
    assert set(commands("quick_start.md")) <= set((ROOT / "README.md").read_text().splitlines())


@pytest.mark.parametrize("command", commands("loggers.md"))
def test_the_commands_about_loggers_are_understood(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "collapse-run"
    check_command_line(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("command", commands("loggers.md"))
def test_the_commands_about_loggers_run(command: str, tmp_path: Path) -> None:
    process = call(*shlex.split(command), *SMALL, folder=tmp_path)
    assert process.returncode == 0, process.stderr
    assert not process.stderr
    for name in re.findall(r"csv|tensorboard|wandb|mlflow", command.partition("logger=")[2].partition(" ")[0]):
        assert list(tmp_path.glob(f"runs/*/logs/{name}/*"))


@pytest.mark.slow
def test_the_commands_about_encoders_run(tmp_path: Path) -> None:
    run, measure = commands("encoders.md")
    for command in ([*shlex.split(run), *SMALL], shlex.split(measure)):
        process = call(*command, folder=tmp_path)
        assert process.returncode == 0, process.stderr


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=900,
    )
    assert process.returncode == 0, process.stderr
    pages = {page.relative_to(tmp_path).as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    assert {"index.html", "protocol.html", "experiments.html", "options/mitigation.html"} <= set(pages)
    loads = re.compile(r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)")
    for name, page in pages.items():
        assert not loads.findall(page), name
    assert not any("@import" in css.read_text() or "url(http" in css.read_text() for css in tmp_path.rglob("*.css"))
    assert not list(tmp_path.rglob("*.py"))
    assert "mitigation.<wbr>refiner.<wbr>w" in pages["options/mitigation.html"]
