"""Tables of text for the terminal, and as Markdown, LaTeX and HTML."""

import html
import re
from collections.abc import Sequence

import pandas as pd

_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {character: f"${character}$" for character in "<>|"}
    | {"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$"}
    # At the start of a row these would be an option of the line break before it.
    | {"[": "{[}", "]": "{]}"}
)
_MINUS = re.compile(r"(?<![\w$])-(?=\d)")


def to_text(table: pd.DataFrame, width: int = 120) -> str:
    """A table of text for the terminal; columns that do not fit in ``width`` characters continue below."""
    names = [str(table.index.name or ""), *map(str, table.index)]
    blocks: list[list[str]] = []
    room = 0
    for name in table.columns:
        need = 2 + max(len(line) for cell in [*_break_header(str(name)), *table[name]] for line in cell.split("\n"))
        if not blocks or need > room:
            blocks.append([])
            room = width - max(map(len, names))
        blocks[-1].append(name)
        room -= need
    return "\n\n".join(_format_block(names, table[columns]) for columns in blocks)


def to_markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown, as GitHub reads it."""
    rows = [[str(table.index.name or ""), *map(str, table.columns)], ["---", *["---:"] * len(table.columns)]]
    rows += [[str(name), *cells] for name, *cells in table.itertuples(name=None)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in row) + " |" for row in rows
    )


def to_latex(table: pd.DataFrame) -> str:
    """A table of text as a LaTeX ``tabular``, which needs the package booktabs; lines of a cell stay lines."""
    texts = table.reset_index(names=str(table.index.name or "")).map(_latex_cell)
    texts.columns = [_latex_cell("\n".join(_break_header(str(name))).strip()) for name in texts.columns]
    return texts.to_latex(index=False, escape=False, column_format="l" + "r" * len(table.columns))


def escape_latex(text: str) -> str:
    """One line of text as LaTeX shows it: no character of it is a command, and a minus is a minus."""
    return _MINUS.sub("$-$", text.translate(_LATEX))


def _latex_cell(text: str) -> str:
    lines = " \\\\ ".join(escape_latex(line) for line in text.split("\n"))
    return rf"\shortstack[r]{{{lines}}}" if "\n" in text else lines


def to_html(table: pd.DataFrame) -> str:
    """A table of text as HTML; the second and later lines of a cell are set smaller."""

    def cell(text: str) -> str:
        # An interval may go to the next line as a whole.
        whole = re.sub(r"(\[[^\], ]+), ", r"\1,&nbsp;", html.escape(text)).replace("± ", "±&nbsp;")
        first, *rest = whole.split("\n")
        return "".join([f"<b>{first}</b>" if rest else first, *(f"<small>{line}</small>" for line in rest)])

    def name(text: str) -> str:
        # Long names may break after an underscore or a slash, never between an arrow and what it points at.
        return html.escape(text).replace("_", "_<wbr>").replace("/", "/<wbr>").replace("→ ", "→&nbsp;")

    head = "".join(f'<th scope="col">{name(str(column))}</th>' for column in [table.index.name or "", *table.columns])
    body = "".join(
        f'<tr><th scope="row">{name(str(row))}</th>{"".join(f"<td>{cell(c)}</td>" for c in cells)}</tr>\n'
        for row, *cells in table.itertuples(name=None)
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _format_block(names: Sequence[str], columns: pd.DataFrame) -> str:
    lines = [max(len(cell.split("\n")) for cell in row) for row in columns.itertuples(index=False, name=None)]
    block = [_stack(names[:1], [2]) + _stack(names[1:], lines)]
    # Headers break before the arrow, so that columns are as narrow as their numbers.
    block += [_stack(_break_header(str(name)), [2]) + _stack(columns[name], lines) for name in columns]
    return "\n".join(_justify(row, block) for row in zip(*block, strict=True))


def _break_header(header: str) -> list[str]:
    words = header.split(" ")
    half = next((i for i in range(1, len(words)) if len(" ".join(words[:i])) * 2 >= len(header)), len(words))
    return ["\n".join((" ".join(words[:half]), " ".join(words[half:])))]


def _stack(cells: Sequence[str] | pd.Series, lines: Sequence[int]) -> list[str]:
    stacked: list[str] = []
    for cell, count in zip(cells, lines, strict=True):
        parts = cell.split("\n")
        stacked += parts + [""] * (count - len(parts))
    return stacked


def _justify(row: Sequence[str], block: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in block]
    first, *rest = row
    return "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]).rstrip()
