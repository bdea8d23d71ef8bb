"""The notebooks are clean, define nothing that belongs in the package, and run from top to bottom."""

import ast
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# A step of two threads takes up to eight times as long beside another test.
FEWER_STEPS = {"budget.num_steps_initial": 40, "budget.num_steps": 10}
ONE_THREAD = "import torch\ntorch.set_num_threads(1)\ntorch.set_num_threads = lambda count: None\n"


def source_of(notebook: nbformat.NotebookNode) -> list[ast.Module]:
    """The Python of each cell; one that writes a file or runs a command has none."""
    sources = [cell.source.replace("%matplotlib inline\n", "") for cell in notebook.cells if cell.cell_type == "code"]
    return [ast.parse(source) for source in sources if not source.startswith(("%%writefile", "!"))]


def test_there_are_five_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_first_chain",
        "02_compare_mitigations",
        "03_verdicts_and_statistics",
        "04_your_own_images",
        "05_your_own_mitigation",
    ]
    readme = (FOLDER / "README.md").read_text()
    assert all(path.name in readme for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.id for cell in notebook.cells] == [f"cell-{k:02d}" for k in range(len(notebook.cells))]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), f"{path.name}: clear the outputs of {cell.id}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_a_question_and_defines_nothing(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source.splitlines()[0].startswith("# ")
    assert notebook.cells[0].source.splitlines()[0].endswith("?")
    nodes = [node for module in source_of(notebook) for node in ast.walk(module)]
    assert any(isinstance(node, ast.ImportFrom) and node.module == "collapse_bench" for node in nodes)
    defined = [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda))]
    assert defined == [], "what a notebook defines belongs in the package"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in {"COLLAPSE_BENCH_CACHE": "cache", "IPYTHONDIR": "ipython", "TMPDIR": "tmp"}.items():
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "one_thread.py").write_text(ONE_THREAD)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for option, steps in FEWER_STEPS.items():
            cell.source = re.sub(rf"{option}=\d+", f"{option}={steps}", cell.source)
    before = sorted(FOLDER.iterdir())
    NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "Traceback" not in printed
    assert "failed" not in printed
    assert sorted(FOLDER.iterdir()) == before, "a notebook leaves nothing beside itself"
    assert os.environ["TMPDIR"] == str(tmp_path / "tmp")
