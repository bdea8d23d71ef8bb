"""Puts the parts of one cell together and refuses combinations that make no sense, before anything is trained."""

from collections.abc import Mapping

import torch

from collapse_bench.datasets.base import RealImages
from collapse_bench.encoders.base import Encoder
from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Generator
from collapse_bench.loop import Parts
from collapse_bench.measuring import Measurer
from collapse_bench.metrics.base import GenerativeMetric
from collapse_bench.mitigations.base import Mitigation
from collapse_bench.now import Setting
from collapse_bench.regimes.base import Regime
from collapse_bench.samplers.base import Sampler
from collapse_bench.seeding import isolated_rng
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import Budget
from collapse_bench.watch import Watch


def assemble(
    *,
    data: RealImages,
    generator: Generator,
    sampler: Sampler,
    regime: Regime,
    mitigation: Mitigation,
    encoder: Encoder,
    metrics: Mapping[str, GenerativeMetric],
    budget: Budget,
    trainer: TrainerOptions,
    store: Store,
    watch: Watch | None = None,
) -> Parts:
    """One cell of the benchmark, ready to run; the encoder is trained here if the store does not have it.

    Sets torch's number of threads, on which results depend, for the process.

    Raises:
        ConfigError: if two parts do not go together, or an option is out of range for these images.
    """
    with isolated_rng(0):
        sampler.check(generator.empty_model(data.spec))
    if sampler.quantize and data.spec.dtype != "uint8":
        raise ConfigError(f"sampler.quantize=true, but dataset {data.name} has no grey levels; set it to false")
    for metric in metrics.values():
        metric.check(encoder.has_probabilities)
    torch.set_num_threads(trainer.num_threads)
    watch = watch or Watch()
    watch.phase(0, "encoder")
    fitted_encoder = encoder.fit(data.pool, data.spec, trainer.exact, store)
    setting = Setting(spec=data.spec, real=data.pool, budget=budget, trainer=trainer, store=store, watch=watch)
    measurer = Measurer(fitted_encoder, metrics, data.held_out, budget.num_measured)
    return Parts(setting, generator, sampler, regime, mitigation, measurer)
