import importlib
import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from collapse_bench import fingerprint as fingerprint_module
from collapse_bench.errors import ConfigError
from collapse_bench.fingerprint import code_version, fingerprint, foreign_source, library_versions
from collapse_bench.seeding import Role
from collapse_bench.types import Budget, ImageSpec

THINGS = (
    "torch.arange(6).view(2, 3), numpy.ones(3), Budget(3, 2, 1), ImageSpec(1, 8, 8, ('a', 'b')),"
    "{'width': 0.1, 'b': None}, ['x', b'y'], True, torch.tensor(0.5)"
)


@dataclass(frozen=True)
class Part:
    width: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class OtherPart:
    width: float
    names: tuple[str, ...] = ()


def test_another_process_finds_the_same_fingerprint() -> None:
    code = (
        "import numpy, torch\nfrom collapse_bench.fingerprint import fingerprint\n"
        f"from collapse_bench.types import Budget, ImageSpec\nprint(fingerprint({THINGS}))"
    )
    # Strings hash differently in this process, so an order that came from a set would show.
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    scope = {"numpy": np, "torch": torch, "Budget": Budget, "ImageSpec": ImageSpec}
    assert other.stdout.strip() == fingerprint(*eval(THINGS, scope))


def test_a_fingerprint_is_32_hexadecimal_digits() -> None:
    assert len(fingerprint()) == 32
    assert int(fingerprint(), 16) >= 0


DIFFERENT = {
    "dtype": (torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.float32)),
    "shape": (torch.zeros(2, 3), torch.zeros(3, 2)),
    "empty shape": (torch.zeros(0, 3), torch.zeros(0, 2)),
    "value": (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0000002])),
    "order": (torch.tensor([1, 2]), torch.tensor([2, 1])),
    "scalar value": (torch.tensor(1.0), torch.tensor(2.0)),
    "scalar dtype": (torch.tensor(1.0), torch.tensor(1.0, dtype=torch.float64)),
    "scalar or vector": (torch.tensor(1.0), torch.tensor([1.0])),
    "brain float": (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.float16)),
    "array value": (np.array([1.0]), np.array([2.0])),
    "array dtype": (np.zeros(2, np.int32), np.zeros(2, np.float32)),
    "array shape": (np.zeros((2, 3)), np.zeros((3, 2))),
    "array or tensor": (np.zeros(2), torch.zeros(2, dtype=torch.float64)),
    "number type": (1, 1.0),
    "truth or number": (1, True),
    "number or text": (1, "1"),
    "text or bytes": ("a", b"a"),
    "none or text": (None, "None"),
    "key": ({"a": 1}, {"b": 1}),
    "entry": ({"a": 1}, {"a": 2}),
    "nesting": ([[1], [2]], [[1, 2]]),
    "split of strings": (["ab", "c"], ["a", "bc"]),
    "length": ([None], [None, None]),
    "argument": (Part(0.1), Part(0.2)),
    "nested argument": (Part(0.1, ("a",)), Part(0.1, ("a", "b"))),
    "class": (Part(0.1), OtherPart(0.1)),
    "class or its arguments": (Part(0.1), {"width": 0.1, "names": ()}),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_fingerprints_differ_by(what: str) -> None:
    first, second = DIFFERENT[what]
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint({"inside": [first]}) != fingerprint({"inside": [second]})


def test_the_order_and_the_number_of_things_matter() -> None:
    assert len({fingerprint(1, 2), fingerprint(2, 1), fingerprint(1), fingerprint([1, 2]), fingerprint()}) == 5


SAME = {
    "memory layout": (torch.eye(3).mul(torch.arange(3)).T.contiguous(), torch.eye(3).mul(torch.arange(3)).T),
    "part of a larger tensor": (torch.ones(3, 1), torch.ones(3, 2)[:, :1]),
    "channels last": (torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)),
    "gradient": (torch.ones(2), nn.Parameter(torch.ones(2))),
    "array layout": (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
    "kind of mapping": ({"a": 1}, MappingProxyType({"a": 1})),
    "list or tuple": ([1, 2], (1, 2)),
    "equal dataclasses": (Part(0.1, ("a",)), Part(0.1, ("a",))),
    "not-a-number": (torch.tensor([float("nan")]), torch.tensor([float("nan")])),
}


@pytest.mark.parametrize("what", SAME)
def test_fingerprints_do_not_depend_on(what: str) -> None:
    first, second = SAME[what]
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize("make", [float, torch.tensor, lambda x: torch.tensor([x]), lambda x: np.array([x])])
def test_a_zero_and_a_negative_zero_count_as_different(make) -> None:
    # They compare equal but divide differently; a needless second fit is cheaper than a wrong reuse.
    assert fingerprint(make(0.0)) != fingerprint(make(-0.0))


def test_modules_are_told_apart_by_class_and_parameters() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    assert fingerprint(first) != fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert fingerprint(first) == fingerprint(second)
    wrapped = nn.Bilinear(1, 1, 1)
    assert fingerprint(nn.Sequential()) != fingerprint(nn.Identity())
    assert fingerprint(wrapped) != fingerprint(first)


@pytest.mark.parametrize(
    "thing",
    [object(), {1, 2}, lambda: None, print, Path("a"), Part, np.array([object()]), np.int64(1), range(3)],
    ids=lambda thing: type(thing).__name__,
)
def test_an_object_of_another_kind_is_refused(thing: object) -> None:
    for holder in (thing, [thing], {"a": thing}, Part(thing)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="cannot fingerprint"):
            fingerprint(holder)
    assert fingerprint("a plain value")


def load_module(path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("a_users_part", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "a_users_part", module)
    spec.loader.exec_module(module)
    return module


def test_the_source_of_a_users_own_part_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from dataclasses import dataclass\n@dataclass\nclass Mine:\n    width: float\n"
    found = []
    for name, text in (("a.py", source), ("b.py", source), ("c.py", source + "\n# edited\n")):
        path = tmp_path / name
        path.write_text(text)
        found.append(fingerprint(load_module(path, monkeypatch).Mine(0.1)))
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes modules of a user's into a folder and imports one of them, anew."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write_and_import(module: str, **files: str) -> ModuleType:
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        for name in [name for name in sys.modules if name.startswith("users_")]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return importlib.import_module(module)
        finally:
            sys.dont_write_bytecode = before

    return write_and_import


def test_the_whole_package_of_a_users_part_matters(imported) -> None:
    part = "from users_package.helpers import half\nclass Mine:\n    pass\ndef build():\n    return half(1)\n"
    helpers = "def half(x):\n    return x / 2\n"
    first = imported("users_package.part", users_package__part=part, users_package__helpers=helpers).Mine
    source = foreign_source(first)
    assert len(source) == 16
    assert foreign_source(imported("users_package.part").Mine) == source
    edited = imported("users_package.part", users_package__helpers=helpers + "# edited\n")
    assert foreign_source(edited.Mine) != source
    assert foreign_source(edited.build) == foreign_source(edited.Mine), "a function stands on the same code"
    assert foreign_source(first) == source, "what was loaded stays what it was"


def test_what_a_users_part_inherits_from_matters(imported) -> None:
    part = "from users_base import Base\nclass Mine(Base):\n    pass\n"
    source = foreign_source(imported("users_part", users_part=part, users_base="class Base:\n    pass\n").Mine)
    edited = imported("users_part", users_base="class Base:\n    width = 1\n").Mine
    assert foreign_source(edited) != source


def test_our_own_code_and_that_of_libraries_has_a_version_instead() -> None:
    assert [foreign_source(cls) for cls in (Budget, nn.Linear, Path, dict)] == [""] * 4
    assert foreign_source(code_version) == foreign_source(Path.exists) == ""


def test_a_part_without_a_source_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "a_notebook", ModuleType("a_notebook"))
    mine = type("Mine", (), {"__module__": "a_notebook"})
    with pytest.raises(ConfigError, match=r"defined in a_notebook, which is no file.*a file NAME\.py"):
        foreign_source(mine)


def test_names_of_roles_count_by_their_type_and_value() -> None:
    assert fingerprint(Role.FIT) == fingerprint(Role("fit"))
    assert len({fingerprint(role) for role in Role}) == len(Role)


def test_the_code_version_follows_the_code_that_can_change_a_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint_module, "_PACKAGE", tmp_path)

    def version_with(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return code_version.__wrapped__()

    first = version_with("training.py", "a")
    for name in ("analysis/tables.py", "cli/run.py", "testing/chains.py", "api.py"):
        assert version_with(name, "a") == first
    assert version_with("notes.txt", "a") == first
    edited = version_with("training.py", "b")
    assert edited != first
    assert version_with("networks/unet.py", "a") != edited


def test_the_code_version_follows_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_version.__wrapped__() == code_version()
    monkeypatch.setattr(fingerprint_module, "library_versions", lambda: {**library_versions(), "torch": "0.0"})
    assert code_version.__wrapped__() != code_version()


def test_library_versions_name_what_the_numbers_depend_on() -> None:
    versions = library_versions()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert versions["numpy"] == np.__version__
    assert all(versions.values())
