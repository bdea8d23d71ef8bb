"""The self-consuming loop. This page is the program."""

from dataclasses import dataclass, replace
from typing import Literal

from collapse_bench.chain import Chain
from collapse_bench.generators.base import Generator
from collapse_bench.measuring import Measurer
from collapse_bench.mitigations.base import Mitigation
from collapse_bench.now import Now, Setting
from collapse_bench.records import Record
from collapse_bench.regimes.base import Regime
from collapse_bench.rundir import RunDir
from collapse_bench.samplers.base import Sampler


@dataclass(frozen=True, eq=False)
class Parts:
    """One cell of the benchmark, ready to run.

    Args:
        setting: images, budget, trainer and store, which every part may look at.
        generator: what is fitted.
        sampler: how it is sampled.
        regime: what it is fitted to.
        mitigation: what is done against collapse.
        measurer: what it is worth; it alone holds the held-out images.
    """

    setting: Setting
    generator: Generator
    sampler: Sampler
    regime: Regime
    mitigation: Mitigation
    measurer: Measurer


def run_generations(
    parts: Parts, seed: int, run_dir: RunDir, keep: Literal["last", "all"] = "last"
) -> tuple[Record, ...]:
    """Records of all generations of one chain; those that are committed already are not computed again.

    Args:
        parts: the cell.
        seed: of the chain; every random number is a function of it, the generation and the role.
        run_dir: an opened run directory, empty or of the same configuration.
        keep: which models and pools stay on the disk.

    Raises:
        CollapseBenchError: what a part raises; committed generations are intact and a second call continues.
    """
    chain = Chain.resume_or_start(
        run_dir,
        empty_model=lambda t: parts.setting.generator_at(t).empty_model(parts.setting.spec),
        refined_skeleton=parts.mitigation.refiner.skeleton,
        keep=keep,
        num_pools_needed=parts.regime.num_pools_needed,
        watch=parts.setting.watch,
    )

    # Which real images have arrived can depend on the seed.
    trusted = parts.regime.trusted(parts.setting.real, parts.setting.budget, seed)
    setting = replace(parts.setting, trusted=trusted)

    for t in range(chain.next_generation, parts.setting.budget.num_generations + 1):
        generator = parts.mitigation.steering.steer_fit(parts.generator, t)
        sampler = parts.mitigation.steering.steer_sampling(parts.sampler, t)
        now = Now(t, seed, setting, chain)  # read-only: what a part may look at; meters all that it spends

        # What the model sees.
        train = parts.regime.mix(now)
        weights = parts.mitigation.weigher.weigh(train.visible(), now)
        gate = parts.mitigation.weigher.gate(train.visible(), now)

        # The model.
        fitted = now.fit(generator, train, weights, gate=gate)
        model = parts.mitigation.refiner.refine(fitted, train, now)

        # What it gives to the next generation.
        num_needed = parts.regime.num_needed(t + 1, now)
        draw = sampler.stream(model, now, num_needed)
        kept = parts.mitigation.curator.curate(draw, num_needed, now)

        # What it is worth: fresh samples that never enter a pool.
        trained_on = train.trained_on(weights, gate)
        measured = parts.measurer.measure(sampler, model, kept, trained_on, now, parts.mitigation)

        record = now.record(train, weights, model, kept, measured.scores, parts.measurer.identity)
        ledger = now.ledger(train, weights, gate, draw.candidates, kept, parts.mitigation.curator)
        chain = chain.commit(record, ledger, fitted=fitted, model=model, kept=kept, grid=measured.grid)  # atomic

    return chain.records
