"""The provenance ledger: where every image of a run comes from, what became of it, and what was trained on.

Each generation adds two parquet tables, written inside its commit and never deleted. An image is known by its id and
its seed together: ids number the candidates of a generation, so images drawn for another end may have equal ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pandas as pd
import pyarrow as pa

from collapse_bench.errors import RunDirError

IMAGES = "images.parquet"
"""Images that entered the run at a generation: its candidates, and at generation 0 the real pool."""

TRAINED = "trained.parquet"
"""Images of the training pool of a generation."""

KEY = ("image_id", "seed")
"""What an image is known by."""

COLUMNS = {
    IMAGES: (*KEY, "born", "source", "label", "drawn", "num_kept", "because"),
    TRAINED: (*KEY, "born", "source", "label", "because", "weight", "gate"),
}
"""Columns of the tables."""


@final
@dataclass(frozen=True, eq=False)
class Ledger:
    """What one generation adds to the ledger. It sees the true origin of images, also where a scenario hides it.

    Args:
        images: one row per image that entered the run, with ``drawn`` (whether it was a candidate of the sampler),
            ``num_kept`` (how often it is among the images handed on: 0 if it was dropped) and ``because`` (why it was
            kept, or what dropped it); see ``become``.
        trained: one row per image of the training pool, with its ``weight``: its share of the sampling probability,
            and its ``gate``: the highest log signal-to-noise ratio at which it was trained on (+inf: at every level,
            -inf: at none). A pool that is drawn while training lists none.
    """

    images: pd.DataFrame
    trained: pd.DataFrame

    def save(self, folder: Path) -> None:
        """Writes both tables.

        Raises:
            OSError: if the disk refuses.
        """
        for name, table in ((IMAGES, self.images), (TRAINED, self.trained)):
            table[list(COLUMNS[name])].to_parquet(folder / name, index=False, compression="zstd")


def read_table(file: Path) -> pd.DataFrame:
    """A table that ``Ledger.save`` wrote.

    Raises:
        RunDirError: if it is missing or damaged.
    """
    if not file.exists():
        raise RunDirError(
            f"{file}: missing, as in runs older than the ledger; repeat the run with another run_dir to have one"
        )
    try:
        return pd.read_parquet(file, columns=list(COLUMNS[file.name]))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RunDirError(
            f"{file}: damaged ({' '.join(f'{type(error).__name__}: {error}'.split())}); restore it from a copy, or "
            "repeat the run with another run_dir: it gives the same ledger"
        ) from error


def become(candidates: Sequence[pd.DataFrame], kept: pd.DataFrame, otherwise: str) -> pd.DataFrame:
    """What became of the candidates of one generation, in the order in which they were drawn.

    Images that were handed on and are no candidates follow them, with ``drawn`` false.

    Args:
        candidates: as ``Pool.table`` lists them, draw by draw.
        kept: the images handed on, likewise; repeats are counted.
        otherwise: what ``because`` says of a candidate that is not among them.
    """
    tables = [*(table.assign(drawn=True) for table in candidates), kept.assign(drawn=False)]
    images = pd.concat(tables, ignore_index=True).drop_duplicates(list(KEY), ignore_index=True)
    handed_on = kept.groupby(list(KEY), sort=False)["because"].agg(["size", "first"])
    handed_on = handed_on.reindex(pd.MultiIndex.from_frame(images[list(KEY)]))
    return images.assign(
        num_kept=handed_on["size"].fillna(0).astype("int64").to_numpy(),
        because=handed_on["first"].fillna(otherwise).to_numpy(),
    )
