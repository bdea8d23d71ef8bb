"""The chain: the only state of the loop. It is replaced at every commit, never edited."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from collapse_bench.distributed import from_main
from collapse_bench.errors import RunDirError
from collapse_bench.ledger import Ledger
from collapse_bench.pool import Pool
from collapse_bench.records import Record
from collapse_bench.rundir import RunDir, write_json
from collapse_bench.seeding import isolated_rng
from collapse_bench.store import write_tensors
from collapse_bench.watch import Watch


@dataclass(frozen=True, eq=False)
class Chain:
    """What generations 0 to t-1 left behind.

    Args:
        run_dir: where it is on the disk.
        records: one per committed generation.
        first: the model of generation 0 after refinement.
        fitted: the last model as fitted; a warm start continues from it.
        model: the last model after refinement, which made the last samples; often ``fitted`` itself.
        keep: ``"all"`` keeps every model and pool on the disk, ``"last"`` only what the next generation may need, and
            the model of generation 0.
        num_pools_needed: how many of the last pools the regime looks at; ``None`` is all.
        watch: told of every commit.
    """

    run_dir: RunDir
    records: tuple[Record, ...]
    first: nn.Module | None
    fitted: nn.Module | None
    model: nn.Module | None
    keep: Literal["last", "all"]
    num_pools_needed: int | None
    watch: Watch = field(default_factory=Watch)

    @classmethod
    def resume_or_start(
        cls,
        run_dir: RunDir,
        *,
        empty_model: Callable[[int], nn.Module],
        refined_skeleton: Callable[[nn.Module], nn.Module],
        keep: Literal["last", "all"],
        num_pools_needed: int | None,
        watch: Watch | None = None,
    ) -> Self:
        """The chain as committed in a run directory, which the main process alone reads; empty if nothing is committed.

        Args:
            run_dir: an opened run directory.
            empty_model: makes an unfitted model of a generation.
            refined_skeleton: makes, from a fitted model, an unfitted one of the kind that the refiner returns.
            keep: which models and pools stay on the disk.
            num_pools_needed: how many of the last pools the regime looks at; ``None`` is all.
            watch: told of every commit.

        Raises:
            RunDirError: if a committed file is missing or damaged.
        """
        records = from_main(run_dir.records)
        if not records:
            return cls(run_dir, records, None, None, None, keep, num_pools_needed, watch or Watch())

        def load(t: int) -> tuple[nn.Module, nn.Module]:
            return load_models(run_dir.generation(t), lambda: empty_model(t), refined_skeleton)

        _, first = load(0)
        fitted, model = load(records[-1].generation)
        return cls(run_dir, records, first, fitted, model, keep, num_pools_needed, watch or Watch())

    @property
    def next_generation(self) -> int:
        """The first generation that is not committed."""
        return len(self.records)

    def kept(self, generation: int) -> Pool:
        """The images that a generation handed on.

        Raises:
            RunDirError: if it is not on the disk (``keep=last`` deletes what the regime does not look at).
        """
        return from_main(lambda: Pool.load(self.run_dir.generation(generation) / "kept.safetensors"))

    def commit(
        self, record: Record, ledger: Ledger, *, fitted: nn.Module, model: nn.Module, kept: Pool, grid: np.ndarray
    ) -> Self:
        """The chain with one generation more; on return it is on the disk, all of it.

        Args:
            record: the numbers.
            ledger: where its images come from; it stays whatever ``keep`` says.
            fitted: the model as fitted.
            model: the model after refinement.
            kept: the images handed on.
            grid: sample images with the same seeds in every generation, uint8 [k, h, w, c].

        Raises:
            RunDirError: if the disk refuses; earlier generations stay as they are.
        """

        def write() -> Record:
            with self.run_dir.committing(record.generation) as folder:
                write_tensors(folder / "fitted.safetensors", fitted.state_dict())
                if model is not fitted:
                    write_tensors(folder / "model.safetensors", model.state_dict())
                ledger.save(folder)
                kept.save(folder / "kept.safetensors")
                np.save(folder / "grid.npy", grid, allow_pickle=False)
                write_json(folder / "record.json", record.to_dict())
            if self.keep == "last":
                self._delete_before(record.generation)
            return record

        committed = from_main(write)  # with the times of the main process
        self.watch.committed(committed)
        return replace(self, records=(*self.records, committed), first=self.first or model, fitted=fitted, model=model)

    def _delete_before(self, generation: int) -> None:
        """Deletes the models, and the pools that the regime no longer looks at, of earlier generations."""
        for t in range(generation):
            folder = self.run_dir.generation(t)
            if t > 0:
                (folder / "fitted.safetensors").unlink(missing_ok=True)
                (folder / "model.safetensors").unlink(missing_ok=True)
            if self.num_pools_needed is not None and t <= generation - self.num_pools_needed:
                (folder / "kept.safetensors").unlink(missing_ok=True)


def load_models(
    folder: Path, empty_model: Callable[[], nn.Module], refined_skeleton: Callable[[nn.Module], nn.Module]
) -> tuple[nn.Module, nn.Module]:
    """The models of a committed generation, as fitted and after refinement; often one and the same.

    Args:
        folder: of the generation.
        empty_model: makes an unfitted model.
        refined_skeleton: makes, from a fitted model, an unfitted one of the kind that the refiner returns.

    Raises:
        RunDirError: if a file is missing or damaged.
    """
    with isolated_rng(0):  # an unfitted model draws parameters, which are overwritten at once
        fitted = _load_into(empty_model(), folder / "fitted.safetensors")
        if not from_main((folder / "model.safetensors").exists):
            return fitted, fitted
        return fitted, _load_into(refined_skeleton(fitted), folder / "model.safetensors")


def _load_into(module: nn.Module, path: Path) -> nn.Module:
    try:
        module.load_state_dict(from_main(lambda: load_file(path)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunDirError(f"cannot load the model {path}: {error}; delete its generation folder to redo it") from error
    return module.eval()
