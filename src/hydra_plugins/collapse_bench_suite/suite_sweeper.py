"""A sweep that is a union of products: ``hydra/sweeper=suite``. Hydra finds its plugins in this namespace alone."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override


@dataclass
class SuiteConf:
    """The group option ``hydra/sweeper=suite``."""

    _target_: str = "hydra_plugins.collapse_bench_suite.suite_sweeper.SuiteSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="suite", node=SuiteConf, provider="collapse-bench")


class SuiteSweeper(BasicSweeper):
    """Runs every cell of several blocks once; a block is the product of the values of its keys.

    Cells of the lowest seed come first, so that a suite that is interrupted has whole seeds to compare.

    Args:
        max_batch_size: as in Hydra's basic sweeper.
        params: as in Hydra's basic sweeper, for all blocks.
        blocks: by name, the keys of each block with their values, written as on the command line: ``"a,b,c"``. What
            the command line says of a key replaces what a block says.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None = None,
        blocks: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self._blocks = blocks or {}

    def split_arguments(  # pyright: ignore[reportIncompatibleMethodOverride] (a static method there)
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The cells of all blocks, in batches for the launcher; ``overrides`` are those of the command line."""
        return [list(batch) for batch in self.split_overrides_to_chunks(cells(self._blocks, overrides), max_batch_size)]


def cells(blocks: Mapping[str, Mapping[str, Any]], overrides: list[Override]) -> list[list[str]]:
    """The overrides of every cell, each cell once.

    Args:
        blocks: as in ``SuiteSweeper``.
        overrides: of the command line.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for block in blocks.values():
        own = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in block.items()])
        # The last override of a key wins, so those of the command line follow those of the block.
        (product,) = BasicSweeper.split_arguments([*own, *overrides], None)
        found |= {tuple(sorted(cell)): cell for cell in product}
    return sorted(found.values(), key=_seed)


def _seed(cell: list[str]) -> int:
    """The seed of a cell; 0 where it says none, or one that its own run will refuse."""
    for override in cell:
        key, _, value = override.lstrip("+").partition("=")
        if key == "seed":
            with suppress(ValueError):
                return int(value)
    return 0
