"""Pages that are made from the code when the site is built, so that they cannot drift: a hook of mkdocs.

``options/<group>.md`` lists every option of every group of ``conf/``, ``experiments.md`` every experiment, and
``reference/<package>.md`` the docstrings of every module.
"""

import inspect
import itertools
import math
import re
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.utils import get_class
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
PACKAGE = ROOT / "src" / "collapse_bench"


@dataclass(frozen=True)
class Key:
    """One key of an option.

    Args:
        name: dotted, as on the command line.
        default: as it stands in the file.
        comment: behind it.
        type: of the argument of the class, in words; empty where no class has it.
    """

    name: str
    default: str
    comment: str
    type: str


@dataclass(frozen=True)
class Option:
    """One file of a group.

    Args:
        name: of the option.
        description: the comment at its top, as paragraphs of text.
        commands: the command lines in that comment.
        choices: of other groups that it brings along, from its defaults list.
        keys: in the order of the file.
        classes: that it describes, the outermost only, without repetition.
    """

    name: str
    description: str
    commands: tuple[str, ...]
    choices: tuple[str, ...]
    keys: tuple[Key, ...]
    classes: tuple[type, ...]


def groups() -> dict[str, str]:
    """What each group of options is, by its path in ``conf/``; from the help text of the command line."""
    text = yaml.safe_load((CONF / "run.yaml").read_text())["hydra"]["help"]["template"]
    said = dict(re.findall(r"^  (\w+) {2,}(\S.*)$", text, flags=re.MULTILINE))
    paths = sorted({file.parent.relative_to(CONF).as_posix() for file in CONF.glob("*/**/*.yaml")})
    nested = {
        "generator/network": "the network of a flow or diffusion model",
        "experiment/suite": "sweeps of many cells",
    }
    return {path: said.get(path) or nested[path] for path in paths}


def read_option(file: Path) -> Option:
    """What the file of one option says."""
    text = file.read_text()
    lines = text.splitlines()
    package = file.parent.relative_to(CONF).as_posix().replace("/", ".")
    head = []
    for line in lines:
        if header := re.match(r"# @package (\S+)", line):
            package = header[1]
        elif line.startswith("#"):
            head.append(line.removeprefix("#").strip())
        else:
            break
    if package == "_global_":
        package = ""
    commands = tuple(line for line in head if line.startswith(("collapse-", "uv run ")))
    description = "\n".join("" if line in commands else line for line in head).strip()
    content = yaml.safe_load(text) or {}
    root = yaml.compose(text)
    keys: list[Key] = []
    if isinstance(root, yaml.MappingNode):
        _read_keys(root, package, get_class(content["_target_"]) if "_target_" in content else None, lines, keys)
    return Option(
        name=file.stem,
        description=description,
        commands=commands,
        choices=tuple(_choice(entry) for entry in content.get("defaults", []) if entry != "_self_"),
        keys=tuple(keys),
        classes=tuple(dict.fromkeys(_outermost_classes(content))),
    )


def _read_keys(node: yaml.MappingNode, path: str, cls: type | None, lines: list[str], keys: list[Key]) -> None:
    """Collects the keys below a node of a file; the comment of each stands behind it, on its line."""
    hints = _hints(cls)
    for name_node, value_node in node.value:
        name = name_node.value
        if name in ("_target_", "defaults", "hydra", "<<"):
            continue
        dotted = f"{path}.{name}".removeprefix(".")
        if isinstance(value_node, yaml.MappingNode):
            below = {k.value: v.value for k, v in value_node.value}
            target = get_class(below["_target_"]) if "_target_" in below else None
            comment = lines[name_node.end_mark.line][name_node.end_mark.column :].removeprefix(":").strip()
            if comment.startswith("#"):
                keys.append(Key(dotted, f"a {target.__name__}" if target else "", comment.lstrip("# "), ""))
            _read_keys(value_node, dotted, target, lines, keys)
            continue
        line = lines[value_node.end_mark.line] if value_node.end_mark.line < len(lines) else ""
        start, end = value_node.start_mark, value_node.end_mark
        if start.line == end.line:
            default, rest = lines[start.line][start.column : end.column], line[end.column :]
        else:
            default, rest = " ".join(str(value_node.value).split()), ""
        comment = rest.strip().lstrip("# ")
        if not comment and (other := re.fullmatch(r"\$\{([\w.]+)\}", default)):
            comment = f"as {other[1]}"
        keys.append(Key(dotted, default.strip(), comment, hints.get(name, "")))


def _hints(cls: type | None) -> dict[str, str]:
    """The types of the arguments of a class, in words."""
    if cls is None:
        return {}
    hints = typing.get_type_hints(cls.__init__, vars(sys.modules[cls.__module__]))
    return {name: _in_words(hint) for name, hint in hints.items()}


def _in_words(hint: object) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(str(choice) for choice in typing.get_args(hint))
    text = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    return re.sub(r"\b(\w+\.)+", "", text).replace("NoneType", "null").replace("None", "null")


def _outermost_classes(content: object) -> list[type]:
    if not isinstance(content, dict):
        return []
    if "_target_" in content:
        return [get_class(content["_target_"])]
    return [cls for value in content.values() for cls in _outermost_classes(value)]


def _choice(entry: object) -> str:
    """An entry of a defaults list, in words."""
    if isinstance(entry, str):
        return f"`{entry}`"
    assert isinstance(entry, dict)
    ((key, value),) = entry.items()
    group = str(key).removeprefix("override ").partition("@")[0].strip("/")
    value = f"[{','.join(value)}]" if isinstance(value, list) else value
    return f"`{group}={value}`"


def _summary(cls: type) -> str:
    """The docstring of a class up to its arguments."""
    text = re.split(r"\n(?=(?:Args|Returns|Raises):)", inspect.getdoc(cls) or "")[0]
    return re.sub(r"``([^`]+)``", r"`\1`", text).strip()


def options_page(group: str) -> str:
    """The page of one group, in Markdown."""
    page = [f"# {group}", groups()[group].capitalize() + ".", ""]
    page += [f"Choose one with `{group}=OPTION`, change a key with `KEY=VALUE`.", ""]
    for file in sorted((CONF / group).glob("*.yaml")):
        option = read_option(file)
        page += [f"## {option.name}", "", option.description, ""]
        page += _details(option)
        for cls in option.classes:
            page += [f"[`{cls.__qualname__}`][{cls.__module__}.{cls.__qualname__}]: {_summary(cls)}", ""]
    return "\n".join(page)


def experiments_page() -> str:
    """The page of the experiments and suites, in Markdown."""
    page = [(ROOT / "docs" / "experiments.in.md").read_text(), ""]
    for group in ("experiment", "experiment/suite"):
        for file in sorted((CONF / group).glob("*.yaml")):
            option = read_option(file)
            name = f"{group}/{option.name}".removeprefix("experiment/")
            commands = option.commands or (f"collapse-run experiment={name}",)
            page += [f"## {name}", "", option.description, "", "```text", *commands, "```", ""]
            page += [f"Cells: {_num_cells(file, commands)}.", ""]
            page += _details(option)
    return "\n".join(page)


_BETWEEN_VALUES = re.compile(r",(?![^\[]*\])")  # the commas of a list are its own


def _num_cells(file: Path, commands: Sequence[str]) -> int:
    """Chains that an experiment's commands run; a suite has those of the suite that it builds on, too."""
    sweeper = (yaml.safe_load(file.read_text()).get("hydra") or {}).get("sweeper")
    if sweeper is None or "n_trials" in sweeper:
        runs = [command.split() for command in commands if command.startswith("collapse-run")]
        per_trial = sum(math.prod(argument.count(",") + 1 for argument in arguments) for arguments in runs)
        return per_trial * (sweeper or {}).get("n_trials", 1)
    cells: set[tuple[tuple[str, str], ...]] = set()
    for block in _blocks(file).values():
        values = [
            [(key, value.strip()) for value in _BETWEEN_VALUES.split(str(values))] for key, values in block.items()
        ]
        cells |= {tuple(sorted(cell)) for cell in itertools.product(*values)}
    return len({tuple(pair for pair in cell if pair != ("mitigation", "control")) for cell in cells})


def _blocks(file: Path) -> dict[str, dict[str, object]]:
    content = yaml.safe_load(file.read_text())
    blocks: dict[str, dict[str, object]] = {}
    for entry in content.get("defaults", []):
        if isinstance(entry, str) and entry.startswith("/experiment/suite/"):
            blocks |= _blocks(CONF / f"{entry[1:]}.yaml")
    return blocks | content.get("hydra", {}).get("sweeper", {}).get("blocks", {})


def _details(option: Option) -> list[str]:
    details = []
    if option.choices:
        details += [f"Brings along: {', '.join(option.choices)}.", ""]
    if option.keys:
        rows = [
            (
                f"<code>{key.name.replace('.', '.<wbr>')}</code>",  # a narrow screen breaks it at the dots
                f"`{key.default}`" if key.default else "",
                key.type,
                key.comment,
            )
            for key in option.keys
        ]
        filled = [any(column) for column in zip(*rows, strict=True)]
        for cells in (("key", "default", "type", "meaning"), ("---",) * 4, *rows):
            shown = itertools.compress((cell.replace("|", "\\|") for cell in cells), filled)
            details.append(f"| {' | '.join(shown)} |")
        details.append("")
    return details


def reference_pages() -> dict[str, str]:
    """The pages of the reference, by their path: one of the modules at the top, one per package."""
    folders = [PACKAGE, *sorted(folder for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists())]
    pages = {}
    for folder in folders:
        files = sorted(folder.glob("*.py") if folder == PACKAGE else folder.rglob("*.py"))
        modules = [".".join(f.relative_to(PACKAGE.parent).with_suffix("").parts) for f in files if f.name[0] != "_"]
        name = ".".join(folder.relative_to(PACKAGE.parent).parts)
        own = [name] if folder != PACKAGE and (folder / "__init__.py").read_text().count("\n") > 3 else []
        title = name if folder != PACKAGE else "collapse_bench, the modules at the top"
        blocks = [f"::: {module}\n" for module in (*own, *modules)]
        pages[f"reference/{folder.name}.md"] = "\n".join([f"# {title}\n", *blocks])
    return pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages, and the pictures in ``results/`` that pages show."""
    pages = {_options_path(group): options_page(group) for group in groups() if "experiment" not in group}
    pages["experiments.md"] = experiments_page()
    for path, content in {**pages, **reference_pages()}.items():
        files.append(File.generated(config, path, content=content))
    pictures = {
        match[1]
        for file in (ROOT / "docs").glob("*.md")
        for match in re.finditer(r"!\[[^\]]*\]\(\.\./(results/[^)]+)\)", file.read_text())
    }
    for picture in sorted(pictures):
        files.append(File.generated(config, picture, abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to the repository beside ``docs/`` into links to the pages made of it, or into names."""
    markdown = re.sub(r"(!\[[^\]]*\])\(\.\./(results/[^)]+)\)", r"\1(\2)", markdown)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?:\.\./)+([^)]+)\)", _link, markdown)


def _link(link: re.Match[str]) -> str:
    words, path = link[1], link[2].rstrip("/")
    group = path.removeprefix("conf/")
    if group == "experiment":
        return f"[{words}](experiments.md)"
    if group in groups():
        return f"[{words}]({_options_path(group)})"
    if path.startswith("src/collapse_bench"):
        parts = Path(path).with_suffix("").parts[1:]
        folder = parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else PACKAGE.name
        anchor = f"#{'.'.join(parts)}" if path.endswith(".py") else ""
        return f"[{words}](reference/{folder}.md{anchor})"
    return f"`{path}`" if words.strip("`") in path else f"{words} (`{path}`)"


def _options_path(group: str) -> str:
    return f"options/{group.replace('/', '_')}.md"
