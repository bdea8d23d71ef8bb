"""Content hashes: the same hash means the same inputs, whatever the process, the path or the day."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from collapse_bench.errors import ConfigError

_PACKAGE = Path(__file__).parent
_CANNOT_CHANGE_A_FIT = ("analysis", "api.py", "cli", "conf", "testing")

_LIBRARIES = {
    "collapse-bench": "collapse_bench",
    "torch": "torch",
    "torchvision": "torchvision",
    "pytorch-lightning": "pytorch_lightning",
    "torchmetrics": "torchmetrics",
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
}
"""What the numbers depend on besides the user's own parts: names of distributions, and of what they import."""


@runtime_checkable
class HasSettings(Protocol):
    """A module that is more than its state dictionary."""

    @property
    def settings(self) -> Mapping[str, object]:
        """What else it is, by name."""
        ...


def fingerprint(*things: object) -> str:
    """A 32-digit hexadecimal hash of tensors, arrays, dataclasses, mappings, sequences and plain values.

    Parts of the benchmark are frozen dataclasses, so a part's hash is its class, the source file of that class
    and its arguments. That of a module is its state dictionary, and its settings if it ``HasSettings``.

    Raises:
        TypeError: for an object of any other kind, because hashing its address would never match again.
    """
    digest = hashlib.blake2b(digest_size=16)
    for thing in things:
        _update(digest, thing)
    return digest.hexdigest()


def _update(digest: "hashlib.blake2b", thing: object) -> None:
    if isinstance(thing, Tensor):
        array = thing.detach().cpu().contiguous()
        digest.update(f"tensor {array.dtype} {tuple(array.shape)} ".encode())
        digest.update(array.view(torch.uint8).numpy().tobytes() if array.ndim else repr(array.item()).encode())
    elif isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
        digest.update(f"array {thing.dtype} {thing.shape} ".encode())
        digest.update(np.ascontiguousarray(thing).tobytes())
    elif isinstance(thing, torch.nn.Module):
        digest.update(f"module {type(thing).__qualname__} ".encode())
        _update(digest, dict(sorted(thing.state_dict().items())))
        for name, value in thing.settings.items() if isinstance(thing, HasSettings) else ():
            try:
                _update(digest, (name, value))
            except TypeError as error:
                raise TypeError(f"{type(thing).__qualname__}, attribute {name}: {error}") from error
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        cls = type(thing)
        digest.update(f"dataclass {cls.__module__}.{cls.__qualname__} {foreign_source(cls)} ".encode())
        _update(digest, {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)})
    elif isinstance(thing, Mapping):
        digest.update(f"mapping {len(thing)} ".encode())
        for key, value in thing.items():
            _update(digest, key)
            _update(digest, value)
    elif isinstance(thing, (list, tuple)):
        digest.update(f"sequence {len(thing)} ".encode())
        for value in thing:
            _update(digest, value)
    elif thing is None or isinstance(thing, (str, int, float, bool, bytes)):
        digest.update(f"{type(thing).__name__} {thing!r} ".encode())
    else:
        raise TypeError(f"cannot fingerprint a {type(thing).__qualname__}; pass tensors, dataclasses or plain values")


def foreign_source(thing: type | Callable[..., object]) -> str:
    """Hash of the code of a class or function from outside this package; empty for our own, which has a version.

    Its code is that of all modules of the package that it is in, because it may call any of them, and so for every
    class that it inherits from; of the module alone, where that is in no package. The standard library and the
    libraries in ``library_versions`` do not count.

    Raises:
        ConfigError: if it has no source file, like what is defined in a notebook or at a prompt.
    """
    if isinstance(thing, type):
        return _hash_sources(thing, tuple(base.__module__ for base in thing.__mro__))
    return _hash_sources(getattr(thing, "__code__", type(thing)), (thing.__module__,))


@functools.cache
def _hash_sources(loaded: object, modules: tuple[str, ...]) -> str:
    """Hash of the files of foreign modules, as they were when this was first asked of what was ``loaded`` from them.

    A file that is edited while a chain runs changes nothing: what runs is what was loaded.
    """
    known = {*sys.stdlib_module_names, *_LIBRARIES.values()}
    foreign = [module for module in dict.fromkeys(modules) if module.partition(".")[0] not in known]
    digest = hashlib.blake2b(digest_size=8)
    for module in foreign:
        for name, path in _files(module).items():
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest() if foreign else ""


def _files(module: str) -> dict[str, Path]:
    """The source files of the package that a module is in, or of the module alone, by their names within it."""
    top = sys.modules.get(module.partition(".")[0])
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    if files := {path.relative_to(folder).as_posix(): path for folder in folders for path in folder.rglob("*.py")}:
        return dict(sorted(files.items()))
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        raise ConfigError(
            f"a part is defined in {module}, which is no file, so that one version of it cannot be told from another; "
            "write it into a module (a file NAME.py) and import it from there"
        )
    return {module: Path(file)}


@functools.cache
def code_version() -> str:
    """Hash of everything that could change what a fit computes: this package's source and the libraries."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_PACKAGE.rglob("*.py")):
        relative = path.relative_to(_PACKAGE)
        if relative.parts[0] not in _CANNOT_CHANGE_A_FIT:
            digest.update(relative.as_posix().encode() + b"\0" + path.read_bytes())
    for name, version in library_versions().items():
        digest.update(f"{name}=={version} ".encode())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of the libraries that the numbers depend on."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}
