"""What two processes do together, for ``distributed/test_shared_runs.py``; started by torchrun with a folder and parts.

Every part leaves files in the folder that the test compares with what one process does.
"""

import json
import math
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from chains import TINY, TINY_FLOW, composed, opened_run_dir, parts_of
from torch import Tensor, nn

from collapse_bench.cli.config import build
from collapse_bench.distributed import (
    failing_together,
    from_main,
    gathered,
    is_main,
    join,
    mean_of_all,
    num_processes,
    own_part,
    rank,
)
from collapse_bench.errors import CollapseBenchError, ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.loop import Parts, run_generations
from collapse_bench.pool import Pool
from collapse_bench.records import Record
from collapse_bench.rundir import RunDir
from collapse_bench.seeding import isolated_rng
from collapse_bench.store import Store, write_tensors
from collapse_bench.training import FitJob, Optimisation, TrainerOptions, train
from collapse_bench.watch import Watch

TINY_VAE = ("generator=vae", "generator.num_latents=4", "generator.optimisation.batch_size=16")
CHAINS = {
    "flow": (*TINY, *TINY_FLOW),
    "vae_on_the_fly": (*TINY, *TINY_VAE, "regime=replace_on_the_fly", "metrics=vae"),
    "neon_verifier": (
        *(*TINY, *TINY_FLOW, "budget.num_generations=1", "mitigation=[neon,verifier]"),
        "mitigation.curator.per_class=false",
        *("mitigation.curator.discriminator.num_steps=4", "mitigation.curator.candidates_per_kept=2"),
        *("mitigation.refiner.num_steps=3", "mitigation.refiner.num_samples=20"),
    ),
}
# Batches that two processes cannot split evenly.
FITS = {
    "flow": (*TINY_FLOW, "generator.optimisation.batch_size=7", "generator.optimisation.ema_width=0.1"),
    "vae": ("generator=vae", "generator.optimisation.batch_size=7", "generator.optimisation.batch_loss=sum"),
    "ddpm": (
        *("generator=ddpm", "generator/network=unet_tiny", "generator.optimisation.batch_size=7"),
        *("generator.network.channels=8", "generator.optimisation.max_grad_norm=0.1"),
        *("generator.conditional=true", "generator.condition_dropout=0.2"),
    ),
}
NUM_FIT_STEPS = 5


def fitted(overrides: tuple[str, ...], options: TrainerOptions) -> tuple[dict[str, Tensor], tuple]:
    """Parameters of a model after a few steps on digits, and its losses."""
    config = composed(*overrides)
    data, generator = build(config["dataset"], "dataset").load(), build(config["generator"], "generator")
    with isolated_rng(3):
        model: Model = generator.empty_model(data.spec)
    weights = torch.arange(len(data.pool)) % 3  # some are left out, and some count twice
    losses = generator.fit_model(model, data.pool, weights.double(), FitJob(NUM_FIT_STEPS, 5, options, "a fit"))
    return model.state_dict(), losses


class Killed(BaseException):
    pass


class KilledAfter(Watch):
    """Ends the run once a generation is committed."""

    def __init__(self, generation: int) -> None:
        self.generation = generation

    def committed(self, record: Record) -> None:
        if record.generation == self.generation:
            raise Killed


def run(name: str, folder: Path, killed_after: int | None = None) -> tuple[Parts, tuple[Record, ...] | None]:
    """The chain of a name in a run folder; the caches of the two processes have nothing in common."""
    config = composed(*CHAINS[name], "trainer=ddp")
    parts = parts_of(config, folder / f"store_{rank()}")
    if killed_after is not None:
        parts = replace(parts, setting=replace(parts.setting, watch=KilledAfter(killed_after)))
    run_dir = RunDir(folder / "run")
    try:
        if is_main():
            with opened_run_dir(run_dir.path):
                return parts, run_generations(parts, 0, run_dir, keep="all")
        return parts, run_generations(parts, 0, run_dir, keep="all")
    except Killed:
        return parts, None


def note(folder: Path, name: str, content: Any) -> None:
    path = folder / f"{name}_{rank()}.json"
    path.write_text(json.dumps(content))


def message_of(call: Callable[[], object]) -> str:
    try:
        call()
    except CollapseBenchError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]} ... {str(error).splitlines()[-1]}"
    return "no error"


def chains(folder: Path) -> None:
    for name in CHAINS:
        parts, records = run(name, folder / name)
        assert records is not None
        note(folder, name, [record.deterministic for record in records])
        if name == "flow":
            pool = parts.setting.real
            parts.measurer.see_training(pool)
            scores = parts.measurer.score(pool.images[:45], pool.labels[:45], of="real")  # an odd number
            note(folder, "scores", {score.metric: score.value for score in scores})


def resumed(folder: Path) -> None:
    run("flow", folder / "resumed", killed_after=0)
    assert from_main(lambda: RunDir(folder / "resumed" / "run").num_committed()) == 1
    _, records = run("flow", folder / "resumed")
    assert records is not None
    note(folder, "resumed", [record.deterministic for record in records])


def fits(folder: Path) -> None:
    options = TrainerOptions(num_threads=1, strategy="ddp", num_processes=2)
    for name, overrides in FITS.items():
        parameters, losses = fitted(overrides, options)
        torch.save((parameters, losses), folder / f"fit_{name}_{rank()}.pt")


def stored(folder: Path) -> None:
    """Entries that one process alone has on its disk."""
    calls: list[str] = []

    def build() -> dict[str, Tensor]:
        calls.append("built")
        return {"who": mean_of_all(torch.tensor(float(rank())))}  # which takes all processes that build

    found = {}
    store = Store(folder / f"of_{rank()}")
    for owner in (0, 1):
        if rank() == owner:
            (store.root / "fit").mkdir(parents=True, exist_ok=True)
            write_tensors(store.root / "fit" / f"key{owner}.safetensors", {"who": torch.tensor(7.0)})
        tensors, reused = store.get_or_build("fit", f"key{owner}", build, together=True)
        found[f"process {owner} has it"] = (tensors["who"].item(), reused, len(calls))
    tensors, reused = store.get_or_build("artefact", "key", lambda: {"who": alone()})
    found["artefact"] = (tensors["who"].item(), reused)
    note(folder, "stored", found)


def alone() -> Tensor:
    """What the main process builds while the others wait."""
    return torch.tensor(10.0 * num_processes() + rank())


def errors(folder: Path) -> None:
    def fail_in(process: int, error: Exception) -> None:
        if rank() == process:
            raise error

    network = nn.Linear(4, 1)
    pool = Pool.real(torch.randn(32, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(32).long(), "x")
    num_calls = 0

    def nan_in_one_part(images: Tensor, labels: Tensor) -> Tensor:
        nonlocal num_calls
        num_calls += 1
        bad = math.nan if (rank(), num_calls) == (1, 3) else 1.0
        return (network(images.flatten(1)).squeeze(1) - labels).square() * bad

    job = FitJob(10, 0, TrainerOptions(num_threads=1, strategy="ddp", num_processes=2), "generation 3")
    fit = partial(train, network, nan_in_one_part, pool, torch.ones(32))
    messages = {
        "nan in one part": message_of(lambda: fit(Optimisation(batch_size=8), job)),
        "batch of one": message_of(lambda: fit(Optimisation(batch_size=1), job)),
        "of the main process": message_of(lambda: from_main(lambda: fail_in(0, ConfigError("a wrong option")))),
        "of another process": message_of(lambda: gathered(lambda: fail_in(1, ConfigError("a bad part")), "work")),
        "unforeseen": message_of(lambda: gathered(lambda: fail_in(1, KeyError("a slip")), "work")),
        "parted": message_of(lambda: gathered(lambda: None, f"work of {rank()}")),
    }

    def in_all() -> None:
        with failing_together():
            raise ConfigError("the same in all")

    messages["the same in all"] = message_of(in_all)
    note(folder, "errors", messages)


def parts_of_counts(folder: Path) -> None:
    slices = {count: gathered(lambda count=count: 0, "count") and own_part(count) for count in (0, 1, 2, 7)}
    note(folder, "parts", {count: [part.start, part.stop] for count, part in slices.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    join("ddp", 2, "cpu")
    folder, *names = sys.argv[1:]
    for part in names:
        {part.__name__: part for part in (parts_of_counts, stored, errors, fits, chains, resumed)}[part](Path(folder))
    assert threading.active_count() < 5
