"""From command-line overrides to a checked, plain configuration, and from that to objects."""

import difflib
import importlib.util
import json
import os
import re
import shlex
import sys
import typing
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from collapse_bench.errors import ConfigError, in_one_line

_OPTIONS_WITH_VALUE = ("-c", "--cfg", "-p", "--package", "-i", "--info")
_COMMANDS = {"run": "collapse-run", "measure": "collapse-measure", "selftest": "collapse-measure selftest"}
_EXTRAS = {
    "joblib": "sweep",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
    "optuna": "optuna",
}
_NESTED_GROUPS = ("generator/network",)
# Where things are, what is kept and what is shown. The images themselves are hashed.
_DECIDES_NO_NUMBER = (
    "runs_dir",
    "run_dir",
    "keep",
    "progress",
    "cache",
    "logger",
    "dataset.root",
    "dataset.test_root",
    "dataset.download",
)
_OWN_FILES = ("-cd", "--config-dir")
_OTHER_FILES = ("-cp", "--config-path", "-cn", "--config-name", "--experimental-rerun")


def conf_dir() -> str:
    """The absolute folder of the configuration: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if folder.is_dir():
            return str(folder)
    raise ConfigError(f"no configuration folder beside {package}; reinstall collapse-bench")


def check_command_line(arguments: Sequence[str], config_name: str = "run") -> None:
    """Composes the configuration that a command line asks for, without running it.

    Args:
        arguments: as in ``sys.argv[1:]``; options that start with ``-`` are Hydra's and are not looked at.
        config_name: of the file at the top of the configuration.

    Raises:
        ConfigError: for a misspelt key, group or option, with the nearest match, and for a folder of one's own options
            that is not there or has one of ours.
    """
    if any(a.partition("=")[0] in _OTHER_FILES for a in arguments):
        return  # another set of files; Hydra's own messages must do
    folders = conf_folders(own_conf_dir(arguments))
    with_value = (*_OPTIONS_WITH_VALUE, *_OWN_FILES)
    rest = [a for i, a in enumerate(arguments) if i == 0 or arguments[i - 1] not in with_value]
    texts = [a for a in rest if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    if stray := [a for a in rest if not a.startswith("-") and a not in texts]:
        raise ConfigError(f"{stray[0]!r} is not understood; overrides have the form KEY=VALUE (see --help)")
    parsed = parse_overrides(texts)
    for override in parsed:
        if override.key_or_group in _groups(config_name) and override.value() is None and not override.is_delete():
            raise ConfigError(f"{override.input_line} chooses no option; leave it out, or choose one (see --help)")
        if override.key_or_group in ("hydra/launcher", "hydra/sweeper"):
            _check_plugin(override.key_or_group, str(override.value()))
    overrides = [o for o in parsed if not o.key_or_group.startswith("hydra")]
    multirun = "-m" in rest or "--multirun" in rest
    _check_suite(overrides, multirun)
    if not multirun:
        for override in overrides:
            if override.is_sweep_override():
                raise ConfigError(
                    f"{override.input_line} gives several values; sweep over them with -m, write one list as [a,b], "
                    "or put a text that holds commas into quotes within quotes: KEY=\"'a, b'\""
                )
    plain = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
    compose_config(plain, config_name, folders)
    groups = _groups(config_name)
    of_known_keys = [str(o.input_line) for o in overrides if not o.is_sweep_override() and not o.is_add()]
    known = [*groups, *_keys(of_known_keys, config_name, folders)]
    for override in overrides:
        key = override.key_or_group
        if override.is_add() and key not in known:
            raise ConfigError(_unknown_key(key, known, config_name))
        if override.is_sweep_override() and override.is_discrete_sweep():
            choices = list(override.sweep_string_iterator())
            for choice in choices if key in groups else choices[:1]:
                compose_config([*plain, f"{key}={choice}"], config_name, folders)


def own_conf_dir(arguments: Sequence[str]) -> str | None:
    """The folder of the user's own options that a command line names with ``--config-dir``, if it names one.

    Raises:
        ConfigError: if ``--config-dir`` comes without a folder.
    """
    for k, argument in enumerate(arguments):
        option, has_value, value = argument.partition("=")
        if option in _OWN_FILES:
            if folder := value if has_value else "".join(arguments[k + 1 : k + 2]):
                return folder
            raise ConfigError(f"{option} names no folder; give one: {option} FOLDER")
    return None


def conf_folders(own: str | Path | None = None) -> list[Path]:
    """The folders that options are looked for in: ours, and the user's own where there is one.

    Args:
        own: the user's folder, laid out like ours: ``GROUP/OPTION.yaml``.

    Raises:
        ConfigError: if it is not there, or one of its files has the name of one of ours, which would be two meanings
            of one name.
    """
    ours = Path(conf_dir())
    if own is None:
        return [ours]
    folder = Path(own).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {own}: there is no folder {folder}")
    for file in sorted(path.relative_to(folder) for path in folder.rglob("*.yaml")):
        if (ours / file).exists():
            raise ConfigError(f"{folder / file} has the name of an option of collapse-bench; give it another name")
    return [ours, folder]


def _check_plugin(group: str, option: str) -> None:
    """Raises ConfigError if a launcher or a sweeper is misspelt or not installed."""
    Plugins.instance()  # which finds those that are installed
    installed = sorted(name.removesuffix(".yaml") for name in ConfigStore.instance().list(group))
    if option in _EXTRAS and option not in installed:
        raise ConfigError(f"{group}={option} is not installed; pip install 'collapse-bench[{_EXTRAS[option]}]'")
    if option not in installed:
        nearest = _nearest(option, installed)
        raise ConfigError(f"{group}={option}: there is no such option{nearest}. Options: {', '.join(installed)}")


def _check_suite(overrides: Sequence[Override], multirun: bool) -> None:
    """Raises ConfigError where a suite would silently run as one cell: Hydra reads its blocks only in one sweep."""
    for override in overrides:
        if override.key_or_group == "experiment" and "suite/" in str(override.input_line):
            if not multirun:
                raise ConfigError(f"{override.input_line} is a sweep over many cells; run it with -m")
            if override.is_sweep_override():
                raise ConfigError(f"{override.input_line}: give one suite at a time")


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """The overrides of a command line.

    Raises:
        ConfigError: if one does not follow Hydra's grammar.
    """
    try:
        return OverridesParser.create().parse_overrides(list(texts))
    except HydraException as error:
        raise ConfigError(
            f"the command line is not understood: {error}\nPut a value with special characters into quotes within "
            "quotes: KEY=\"'a (1)'\""
        ) from error


def as_override(value: object) -> str:
    """A Python value in the grammar of the command line.

    Raises:
        ConfigError: if the grammar has no such value.
    """
    from numpy import bool_

    if value is None:
        return "null"
    if isinstance(value, (bool, bool_)):
        return str(bool(value)).lower()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(as_override, value))}]"
    if isinstance(value, Mapping):
        if unfit := [key for key in value if not re.fullmatch(r"[A-Za-z_]\w*", str(key))]:
            raise ConfigError(f"{unfit[0]!r} cannot be a key of a mapping on the command line; letters and digits can")
        return "{" + ",".join(f"{key}:{as_override(of_key)}" for key, of_key in value.items()) + "}"
    if isinstance(value, (str, Path)):
        text = str(value)
        if re.fullmatch(r"[A-Za-z_][\w/]*", text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
            return text
        # Only backslashes before a quote count, as in Hydra's grammar.
        return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (r"\'" if m[2] else ""), text) + "'"
    raise ConfigError(
        f"{value!r} is no text, number, truth value, list, mapping or None; give it as an override: 'KEY=VALUE'"
    )


def as_choice(group: str, choice: str, folders: Sequence[Path] | None = None) -> str:
    """The override that chooses what ``chosen_options`` says of one group, from options that exist and nothing else.

    What a file says was chosen may be a stranger's, and a command line can name any class.

    Args:
        group: of ``run``.
        choice: an option, or several joined by ``+``.
        folders: see ``conf_folders``; ``None`` is ours alone.

    Raises:
        ConfigError: if there is no such group or option.
    """
    groups = _groups("run")
    if group not in groups:
        raise ConfigError(f"{group!r}: there is no such group{_nearest(group, groups)}. Groups: {', '.join(groups)}")
    options, known = choice.split("+"), _options(group, folders or conf_folders())
    for option in options:
        if option not in known:
            raise ConfigError(f"{group}={option}: there is no such option{_nearest(option, known)}")
    return f"{group}={choice}" if len(options) == 1 else f"{group}=[{','.join(options)}]"


def decides_numbers(key: str) -> bool:
    """Whether what a dotted key of the configuration sets can change a number; places and displays do not."""
    return not any(key == place or key.startswith(f"{place}.") for place in _DECIDES_NO_NUMBER)


def chosen_options(hydra: Any = None) -> dict[str, str]:
    """The option chosen in each group; several options of one group are joined by ``+``.

    Args:
        hydra: Hydra's own part of a composed configuration; ``None`` is that of the task of Hydra's that this is.
    """
    hydra = hydra or HydraConfig.get()
    chosen = {
        group: str(name)
        for group, name in hydra.runtime.choices.items()
        if name is not None and not group.startswith("hydra") and "@" not in group
    }
    # Hydra does not list the choices of a group of which several options are chosen.
    for override in parse_overrides(list(hydra.overrides.task)):
        group, options = override.key_or_group, override.value()
        if group not in chosen and group in _groups(hydra.job.config_name or "run") and isinstance(options, list):
            chosen[group] = "+".join(map(str, options))
    return chosen


def resolve(composed: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain values, without Hydra's own part.

    Raises:
        ConfigError: if a value that must be given is missing.
    """
    try:
        own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        config = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{str(error).splitlines()[0]}; give it as {error.full_key}=VALUE") from error
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def compose_config(
    overrides: Sequence[str],
    config_name: str = "run",
    folders: Sequence[Path] | None = None,
    *,
    with_hydra: bool = False,
) -> DictConfig:
    """The configuration that overrides describe.

    Args:
        overrides: as on the command line, without sweeps.
        config_name: of the file at the top of the configuration.
        folders: see ``conf_folders``; ``None`` is ours alone.
        with_hydra: keep Hydra's own part, ``hydra``.

    Raises:
        ConfigError: for a misspelt key, group or option, with the nearest match, and for options that clash.
    """
    ours, *own = folders or conf_folders()
    _refuse_clashes(overrides, config_name, [ours, *own])
    search = [f"hydra.searchpath={json.dumps([f'file://{folder}' for folder in own])}"] if own else []
    try:
        with initialize_config_dir(str(ours), version_base="1.3"):
            return compose(config_name, overrides=[*overrides, *search], return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(str(error), overrides, config_name, [ours, *own])) from error


def _keys(overrides: Sequence[str], config_name: str, folders: Sequence[Path]) -> list[str]:
    """All dotted keys of a configuration."""
    return list(flatten(OmegaConf.to_container(compose_config(overrides, config_name, folders), resolve=False)))


def _refuse_clashes(overrides: Sequence[str], config_name: str, folders: Sequence[Path]) -> None:
    """Several options of one group go together only where no two of them fill the same key differently."""
    for override in parse_overrides(overrides):
        group, options = override.key_or_group, override.value()
        if not isinstance(options, list) or group not in _groups(config_name):
            continue
        filled: dict[str, tuple[str, Any]] = {}
        for option in map(str, options):
            for key, value in _keys_filled_by(group, option, folders).items():
                other, same = filled.setdefault(key, (option, value))
                if value != same:
                    raise ConfigError(
                        f"{group}=[{other},{option}]: both fill {key}, so they do not go together; choose one"
                    )


def _keys_filled_by(group: str, option: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Whole keys, such as ``encoder.pca._target_``, and what the file of one option writes there."""
    file = next((file for folder in folders if (file := folder / group / f"{option}.yaml").is_file()), None)
    if file is None:
        return {}  # Hydra's own message says which options there are
    header = re.match(r"#\s*@package\s+(\S+)", file.read_text())
    package = header[1] if header else group
    content = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(content, dict)
    return {f"{package}.{key}": value for key, value in content.items() if key != "defaults"}


def _groups(config_name: str) -> list[str]:
    """The groups that a configuration chooses from."""
    defaults = OmegaConf.select(OmegaConf.load(Path(conf_dir()) / f"{config_name}.yaml"), "defaults")
    keys = [str(key) for entry in defaults if isinstance(entry, Mapping) for key in entry]
    groups = [key for key in keys if not key.startswith("override ")]
    return sorted([*groups, *(nested for nested in _NESTED_GROUPS if nested.partition("/")[0] in groups)])


def _options(group: str, folders: Sequence[Path]) -> list[str]:
    """The options of a group, those in a folder of their own (``suite/digits``) last; nested groups are none."""
    files = {file.relative_to(folder) for folder in folders for file in (folder / group).rglob("*.yaml")}
    own = [file for file in files if file.parent.as_posix() == group or file.parent.as_posix() not in _NESTED_GROUPS]
    names = [file.relative_to(group).with_suffix("").as_posix() for file in own]
    return sorted(names, key=lambda name: ("/" in name, name))


def _explain(message: str, overrides: Sequence[str], config_name: str, folders: Sequence[Path]) -> str:
    """One sentence that names what is misspelt, and the nearest thing that exists."""
    if plugin := re.search(r"'(hydra/(?:launcher|sweeper))/(\w+)'", message):  # of an experiment
        _check_plugin(plugin[1], plugin[2])
    groups = _groups(config_name)
    choices = [o for o in overrides if o.partition("=")[0] in groups]
    for choice in choices:
        group, _, options = choice.partition("=")
        known = _options(group, folders)
        for option in options.strip("[]").split(","):
            if option.strip() not in [*known, "null"]:
                nearest = _nearest(option, known)
                return f"{choice}: there is no such option{nearest}. Options: {', '.join(known)}"
    for choice in choices:
        group = choice.partition("=")[0]
        if group in _NESTED_GROUPS and f"Could not override '{group}'" in message:
            outer, _, inner = group.partition("/")
            return f"{choice}: this {outer} has no {inner} to choose; leave it out, or take another {outer}"
    if choices == list(overrides):
        return message.strip().splitlines()[0]
    known = [*groups, *_keys(choices, config_name, folders)]
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if not any(name == key or name.startswith(f"{key}.") for name in known):
            return _unknown_key(key, known, config_name)
    return message.strip().splitlines()[0]


def _unknown_key(key: str, known: Sequence[str], config_name: str) -> str:
    return f"{key}: there is no such key{_nearest(key, known)}. All keys: {_COMMANDS[config_name]} --cfg job"


def _nearest(word: str, words: Sequence[str]) -> str:
    matches = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if not matches:  # the last part may be right and the path wrong
        matches = [w for w in words if w.split(".")[-1] == word.split(".")[-1]][:1]
    return f" (did you mean {matches[0]}?)" if matches else ""


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one level with dotted keys; sequences stay values."""
    if not isinstance(config, Mapping) or not config:
        return {prefix.removesuffix("."): config}
    return {k: v for key, value in config.items() for k, v in flatten(value, f"{prefix}{key}.").items()}


def build(node: Any, path: str) -> Any:
    """The object that a configuration node describes; lists become tuples.

    Arguments are checked against the annotations of the class before it is called, so that ``learning_rate=abc``
    is an error here and not a crash in training. A whole number where any number may stand becomes a float, so that
    ``temperature=1`` is ``temperature=1.0`` in everything, schedules and hashes included.

    Args:
        node: plain values; a mapping with ``_target_`` names a class and its arguments.
        path: of the node, for errors.

    Raises:
        ConfigError: if an argument is missing, unknown, of the wrong type or out of range.
    """
    if isinstance(node, Mapping):
        children = {key: build(value, f"{path}.{key}") for key, value in node.items() if key != "_target_"}
        return _call(_locate(node["_target_"], path), children, path) if "_target_" in node else children
    if isinstance(node, (list, tuple)):
        return tuple(build(value, f"{path}[{i}]") for i, value in enumerate(node))
    return node


def classes(node: Any, path: str = "") -> dict[str, type]:
    """The classes that a configuration names, by the dotted path of what they describe.

    Args:
        node: plain values.
        path: of the node.

    Raises:
        ConfigError: if there is no such class.
    """
    if isinstance(node, Mapping):
        own = {path: _locate(node["_target_"], path)} if "_target_" in node else {}
        children = {f"{path}.{key}".removeprefix("."): value for key, value in node.items()}
    elif isinstance(node, (list, tuple)):
        own, children = {}, {f"{path}[{i}]": value for i, value in enumerate(node)}
    else:
        return {}
    return own | {found: cls for key, value in children.items() for found, cls in classes(value, key).items()}


def _locate(target: str, path: str) -> type:
    module, _, name = str(target).rpartition(".")
    no_class = f"{path}._target_={target}: there is no such class"
    try:
        members = vars(importlib.import_module(module))
    except Exception as error:  # importing runs whatever the module does
        package = module.partition(".")[0]
        remedy = "" if _is_importable(package) else f"; install {package}, or name its folder: PYTHONPATH=FOLDER"
        raise ConfigError(f"{no_class} ({type(error).__name__}: {in_one_line(error)}){remedy}") from error
    if not isinstance(found := members.get(name), type):
        near = difflib.get_close_matches(name, [key for key, value in members.items() if isinstance(value, type)], n=1)
        raise ConfigError(f"{no_class} in {module}" + (f"; did you mean {near[0]}?" if near else ""))
    return found


def refuse_foreign_code(node: Any, file: Path, remedy: str) -> None:
    """Refuses classes from outside this package: the file may be a stranger's, and making an object runs its code.

    Args:
        node: plain values.
        file: that they are from, for errors.
        remedy: what to add where one trusts it.

    Raises:
        ConfigError: if it names such a class.
    """
    if isinstance(node, Mapping):
        if "_target_" in node and not _is_own(str(node["_target_"])):
            raise ConfigError(
                f"{file} names {node['_target_']}, code outside collapse_bench; if you trust it, add {remedy}"
            )
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            refuse_foreign_code(child, file, remedy)


def _is_own(target: str) -> bool:
    from hydra.utils import get_class

    if not target.startswith("collapse_bench."):
        return False
    try:
        # A module of this package may have imported a class from elsewhere.
        return get_class(target).__module__.startswith("collapse_bench.")
    except Exception:  # there is no such class, and ``build`` says so
        return True


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _call(cls: type, arguments: Mapping[str, Any], path: str) -> Any:
    from beartype import BeartypeConf
    from beartype.door import is_bearable

    hints = typing.get_type_hints(cls.__init__, vars(sys.modules[cls.__module__]))
    for name, value in arguments.items():
        if name not in hints:
            raise ConfigError(f"{path}.{name}: {cls.__name__} has no such argument{_nearest(name, list(hints))}")
        if not is_bearable(value, hints[name], conf=BeartypeConf(is_pep484_tower=True)):
            raise ConfigError(f"{path}.{name} must be {_readable(hints[name])}, got {value!r}")
    numbers = {k: float(v) for k, v in arguments.items() if type(v) is int and not is_bearable(v, hints[k])}
    try:
        return cls(**{**arguments, **numbers})
    except TypeError as error:
        raise ConfigError(f"{path}: {error}") from error


def _readable(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(hint))
    text = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    return text.replace("None", "null").replace("NoneType", "null")


def speaks() -> bool:
    """Whether this process is the only one, or the first of those that torchrun has started; known before they join."""
    return os.environ.get("RANK", "0") == "0"


def typed_command() -> str:
    """The command line that started this program."""
    num_processes, num_local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if num_processes == 1:
        return shlex.join(["collapse-run", *sys.argv[1:]])
    nodes = [] if num_local == num_processes else [f"--nnodes={num_processes // num_local}"]
    program = ["torchrun", *nodes, f"--nproc_per_node={num_local}", "-m", "collapse_bench.cli.run"]
    return shlex.join([*program, *sys.argv[1:]])
