"""Stated options of a generator or a sampler by name, to be steered."""

import dataclasses
from typing import Any, TypeVar

Part = TypeVar("Part")


def all_options(part: Any, prefix: str) -> dict[str, Any]:
    """All options of a part and of the dataclasses in it, by dotted name.

    Args:
        part: a frozen dataclass.
        prefix: name of the part.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        name = f"{prefix}.{field.name}"
        found |= all_options(value, name) if dataclasses.is_dataclass(value) else {name: value}
    return found


def numeric_options(part: Any, prefix: str) -> dict[str, int | float]:
    """The numbers among ``all_options``; the arguments are the same."""
    return {
        name: value
        for name, value in all_options(part, prefix).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def with_option(part: Part, name: str, value: int | float) -> Part:
    """A copy of a part in which one option has another value.

    Args:
        part: a frozen dataclass.
        name: dotted, without the name of the part.
        value: of the option.

    Raises:
        ConfigError: if the part refuses the value.
    """
    first, _, rest = name.partition(".")
    changed = with_option(getattr(part, first), rest, value) if rest else value
    return dataclasses.replace(part, **{first: changed})  # pyright: ignore[reportArgumentType]
