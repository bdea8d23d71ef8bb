"""Every command in the README does what it says, on a smaller budget."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from chains import TINY, TINY_FLOW
from commands import call
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
LINES = [line for block in BLOCKS for line in block.strip().splitlines()]
COMMANDS = [line for line in LINES if line.startswith("collapse-")]
SMALLER = [o for o in TINY if o.startswith(("budget.", "trainer.", "dataset.num_real"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with what the README's commands speak of."""
    folder = tmp_path_factory.mktemp("readme")
    images = (load_digits().images * 255 / 16).round().astype(np.uint8)
    np.savez(folder / "my_samples.npz", images=images[:60])
    for k, image in enumerate(images[:400]):
        path = folder / "my_images" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((24, 24)).save(path)
    return folder


def needs_mnist(command: str) -> bool:
    return "dataset=mnist" in command or "experiment=mnist_vae" in command


def on_a_smaller_budget(command: str) -> list[str]:
    """A command and its arguments, with what makes it small."""
    program, *arguments = shlex.split(command)
    if program == "collapse-run" and "--help" not in arguments:
        arguments = [*arguments, "budget.num_generations=1", "trainer.num_threads=1"]
        if "experiment=gaussian" not in arguments:  # which is small, and has no classifier
            arguments = [*arguments, *SMALLER, "encoder.pca.classifier.num_steps=5"]
            if not any(a.startswith(("generator=", "experiment=")) for a in arguments):
                arguments += TINY_FLOW
        if needs_mnist(command):
            arguments = [a for a in arguments if a != "dataset.root=data"]
            arguments += ["dataset.num_reference=100", "dataset.num_control=100"]
    if arguments[:1] == ["selftest"]:
        arguments = [*arguments, "encoder.classifier.num_steps=5", "num_replicates=2", "trainer.num_threads=1"]
    elif program == "collapse-measure":
        classifiers = (
            ["pca.classifier", "classifier"] if "encoder=[pca,classifier]" in arguments else ["pca.classifier"]
        )
        arguments = [*arguments, *(f"encoder.{name}.num_steps=5" for name in classifiers), "trainer.num_threads=1"]
    return [program, *arguments]


def test_the_two_commands_are_what_continuous_integration_runs() -> None:
    assert [line for line in LINES if not line.startswith("collapse-")] == [
        "pip install uv && uv run collapse-run",
        "pip install uv && uv run pytest",
    ]
    ci = (ROOT / ".ci" / "run").read_text()
    assert "pip install --quiet uv" in ci
    assert "uv run pytest" in ci
    assert "uv run collapse-run" in ci


def runs(command: str, folder: Path, *more: str) -> None:
    process = call(*on_a_smaller_budget(command), *more, folder=folder)
    assert process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
    assert "Traceback" not in process.stderr, command
    assert process.stdout.strip(), command


@pytest.mark.slow
def test_every_command_of_the_readme_runs(folder: Path) -> None:
    assert len(COMMANDS) >= 9
    for command in COMMANDS:
        if not needs_mnist(command):
            runs(command, folder)
    assert len(list((folder / "runs").glob("*/run.json"))) >= 12
    assert list((folder / "reports").rglob("report.html"))


@pytest.mark.slow
def test_its_commands_on_mnist_run(tmp_path: Path, shared_data: Path) -> None:
    commands = [command for command in COMMANDS if needs_mnist(command)]
    assert len(commands) == 2
    for command in commands:
        runs(command, tmp_path, f"dataset.root={shared_data}")


def test_every_option_in_the_readmes_table_exists_and_none_is_missing() -> None:
    table = {
        match[1]: set(re.findall(r"`(\w+)`", match[2]))
        for match in re.finditer(r"^\| (\w+) \| (.*`.*) \|$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    }
    for group in (p for p in (ROOT / "conf").iterdir() if p.is_dir()):
        assert {p.stem for p in group.glob("*.yaml")} == table[group.name], group.name
