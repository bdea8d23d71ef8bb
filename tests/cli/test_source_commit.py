import subprocess
from pathlib import Path

import pytest

from collapse_bench.cli import chain
from collapse_bench.cli.chain import source_commit


def git(folder: Path, *arguments: str) -> str:
    name = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    done = subprocess.run(["git", *name, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository with one commit, and a package in it whose source is ``source.py``."""
    source = tmp_path / "source.py"
    source.write_text("one = 1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "source.py")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(chain, "__file__", str(source))
    return source


def test_the_commit_of_the_source_is_recorded_with_whether_it_was_changed(checkout):
    commit = git(checkout.parent, "rev-parse", "HEAD")[:12]
    assert source_commit.__wrapped__() == commit
    checkout.write_text("one = 2\n")
    assert source_commit.__wrapped__() == f"{commit} with changes"


def test_a_package_that_was_installed_into_another_checkout_has_no_commit(checkout, monkeypatch):
    installed = checkout.parent / "installed.py"
    installed.touch()
    monkeypatch.setattr(chain, "__file__", str(installed))
    assert source_commit.__wrapped__() is None


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert source_commit.__wrapped__() is None
