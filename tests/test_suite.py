"""The suite looked at as a text: every test asserts something."""

import ast
import re
import tomllib
from pathlib import Path

from collapse_bench.testing import promises

TESTS = Path(__file__).parent


PROMISES = {
    node.name
    for node in ast.parse(Path(promises.__file__).read_text()).body
    if isinstance(node, ast.FunctionDef) and any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
}


def asserts(function: ast.AST) -> bool:
    """Whether a function holds an assert, expects an exception, or calls something that says it asserts."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            of_promises = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "promises"
            if (of_promises and name in PROMISES) or name in ("raises", "warns", "fail") or name.startswith("assert_"):
                return True
    return False


def test_every_test_function_asserts_something() -> None:
    silent = []
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not asserts(node):
                silent.append(f"{path.name}::{node.name}")
    assert silent == []


def test_every_test_file_has_a_name_of_its_own() -> None:
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert len(names) == len(set(names))


def test_every_dependency_is_pinned_and_no_registry_is_named() -> None:
    root = TESTS.parent
    constraints = (root / "constraints.txt").read_text()
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    pinned = {line.partition("==")[0] for line in constraints.splitlines() if "==" in line}
    assert {re.split(r"[\[<>=]", name)[0] for name in wanted} - {"collapse-bench"} <= pinned
    assert "://" not in constraints


def test_every_link_in_the_documents_leads_somewhere() -> None:
    root = TESTS.parent
    broken = [
        f"{path.relative_to(root)}: {link}"
        for path in [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("results/**/*.md")]
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text())
        if "://" not in link and not (path.parent / link).exists()
    ]
    assert broken == []
