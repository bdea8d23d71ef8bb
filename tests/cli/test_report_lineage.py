"""``collapse-report lineage`` as a user meets it."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from chains import TINY_GAUSSIAN
from commands import call

from collapse_bench.cli.report import main
from collapse_bench.ledger import IMAGES, TRAINED


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``collapse-run``, which deletes old pools and models and keeps the ledger."""
    folder = tmp_path_factory.mktemp("lineage")
    options = ["regime=accumulate", "mitigation=random_subset", "progress=false", "cache.enabled=false"]
    process = call("collapse-run", *TINY_GAUSSIAN, *options, f"run_dir={folder / 'mine'}", folder=folder)
    assert process.returncode == 0, process.stderr
    return folder / "mine"


def test_the_command_prints_the_lineage_and_writes_ledger_table_and_figure(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lineage", str(run)]) == 0
    printed = capsys.readouterr().out
    for words in ("4 generations, 198 images", "33.3 % (22)", "100 %", "not kept by RandomSubset", "kept: at random"):
        assert words in printed
    out = tmp_path / "reports" / "mine"
    ledger = pd.read_parquet(out / "ledger.parquet")
    assert len(ledger) == 198
    assert ledger["trained_in"].iloc[0].tolist() == [0, 1, 2, 3]
    table = pd.read_csv(out / "lineage.csv")
    assert len(table) == 1 + 2 + 3 + 4
    assert table.loc[table["origin"] == "real", "frac_of_origin"].tolist() == [1.0] * 4
    assert (out / "lineage.png").read_bytes().startswith(b"\x89PNG")


def test_the_folder_can_be_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", str(run), "--out", str(tmp_path / "here")]) == 0
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == ["ledger.parquet", "lineage.csv", "lineage.png"]
    assert str(tmp_path / "here" / "lineage.png") in capsys.readouterr().out


def test_an_error_is_one_line_that_names_the_file(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(*arguments: str) -> str:
        assert main(["lineage", *arguments, "--out", str(tmp_path / "out")]) == 1
        message = capsys.readouterr().err
        assert message.startswith("collapse-report: ")
        assert len(message.splitlines()) == 1
        return message

    assert "nothing: no such folder" in refusal(str(tmp_path / "nothing"))
    (tmp_path / "nothing").mkdir()
    assert "is this a run directory?" in refusal(str(tmp_path / "nothing"))
    images, trained = (run / "gen_002" / name for name in (IMAGES, TRAINED))
    for file, words in ((images, "missing, as in runs older than the ledger"), (trained, "damaged")):
        content = file.read_bytes()
        file.unlink() if words.startswith("missing") else file.write_bytes(content[:-9])
        try:
            message = refusal(str(run))
        finally:
            file.write_bytes(content)
        assert f"{file}: {words}" in message
    (tmp_path / "out").write_text("a file")
    assert "choose another folder with --out" in refusal(str(run))


def test_a_folder_called_lineage_is_reported_by_its_path(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lineage").symlink_to(run.parent)
    monkeypatch.chdir(tmp_path)
    assert main(["./lineage", "--out", "out"]) == 0
    assert "1 runs" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()


def test_the_command_imports_no_torch(run: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from collapse_bench.cli.report import main; "
        f"assert main(['lineage', {str(run)!r}, '--out', {str(tmp_path)!r}]) == 0; "
        "assert not {'torch', 'torchvision', 'pytorch_lightning', 'hydra'} & set(sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
