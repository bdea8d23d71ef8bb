"""Puts the parts of one cell together and refuses combinations that make no sense, before anything is trained."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from collapse_bench.datasets.base import RealImages
from collapse_bench.encoders.base import Encoder
from collapse_bench.encoders.classifier import Classifier
from collapse_bench.encoders.with_classes import WithClasses
from collapse_bench.errors import CombinationError, ConfigError
from collapse_bench.generators.base import Generator
from collapse_bench.loop import Parts
from collapse_bench.measuring import Measurer
from collapse_bench.metrics.base import GenerativeMetric
from collapse_bench.metrics.model import ModelMetric
from collapse_bench.mitigations.base import Mitigation
from collapse_bench.mitigations.control import EqualWeights, KeepAll, NoRefinement, NoSteering
from collapse_bench.now import Setting
from collapse_bench.pool import UNLABELLED
from collapse_bench.regimes.base import Regime
from collapse_bench.samplers.base import Sampler
from collapse_bench.seeding import isolated_rng
from collapse_bench.store import Store
from collapse_bench.training import TrainerOptions
from collapse_bench.types import Budget, ImageSpec
from collapse_bench.watch import Watch


def assemble(
    *,
    data: RealImages,
    generator: Generator,
    sampler: Sampler,
    regime: Regime,
    mitigation: Mitigation,
    encoder: Mapping[str, Encoder],
    metrics: Mapping[str, GenerativeMetric | ModelMetric],
    budget: Budget,
    trainer: TrainerOptions,
    store: Store,
    seed: int,
    labels: Classifier | None = None,
    watch: Watch | None = None,
    objective: str | None = None,
) -> Parts:
    """One cell of the benchmark, ready to run; the encoder is trained here if the store does not have it.

    ``seed`` is that of the chain: some regimes trust other real images with another one.

    Sets what of torch's arithmetic holds for the whole process, see ``TrainerOptions.apply``. ``objective`` is that of
    ``Measurer``.

    Raises:
        CombinationError: if two parts do not go together.
        ConfigError: if an option is out of range for these images.
    """
    with isolated_rng(0):
        model = generator.empty_model(data.spec)
    with _going_together():
        sampler.check(model)
        if sampler.quantize and data.spec.dtype != "uint8":
            raise ConfigError(f"sampler.quantize=true, but dataset {data.name} has no grey levels; set it to false")
        if regime.hidden and data.spec.dtype == "uint8" and not sampler.quantize:
            raise ConfigError(
                f"the regime {type(regime).__name__} hides which images are real, and with sampler.quantize=false the "
                "real ones alone have whole grey levels; set it to true"
            )
        regime.check(len(data.pool), budget)
        if not regime.has_pool:
            _check_without_pool(generator, mitigation, type(regime).__name__)
    watch = watch or Watch()
    setting = Setting(
        spec=data.spec,
        real=data.pool,
        trusted=regime.trusted(data.pool, budget, seed),
        hidden=regime.hidden,
        keeps_real=regime.keeps_real(len(data.pool), budget),
        labels=labels,
        generator=generator,
        sampler=sampler,
        steering=mitigation.steering,
        budget=budget,
        trainer=trainer,
        store=store,
        watch=watch,
    )
    with _going_together():
        if labels is not None:
            _check_labels(labels, setting, encoder)
        mitigation.check(setting)
    measurer = assemble_measurer(
        data,
        encoder,
        metrics,
        num_measured=budget.num_measured,
        num_floor_splits=budget.num_floor_splits,
        trainer=trainer,
        store=store,
        watch=watch,
        objective=objective,
    )
    return Parts(setting, generator, sampler, regime, mitigation, measurer)


def assemble_measurer(
    data: RealImages,
    encoders: Mapping[str, Encoder],
    metrics: Mapping[str, GenerativeMetric | ModelMetric],
    *,
    num_measured: int | None,
    num_floor_splits: int,
    trainer: TrainerOptions,
    store: Store,
    watch: Watch | None = None,
    objective: str | None = None,
) -> Measurer:
    """The measuring side of a cell; encoders are trained here if the store does not have them.

    Raises:
        ConfigError: if an encoder or a metric cannot be used on these images.
    """
    check_measures(encoders, metrics, data.spec, trainer.exact)
    trainer.apply()
    watch = watch or Watch()
    watch.phase(0, "encoder")
    fitted = {
        name: encoder.fit(data.not_held_out, data.spec, trainer.exact, store) for name, encoder in encoders.items()
    }
    watch.phase(0, "floor")
    return Measurer(
        fitted,
        metrics,
        held_out=data.held_out,
        real=data.pool,
        num_measured=num_measured,
        num_floor_splits=num_floor_splits,
        store=store,
        objective=objective,
    )


def check_measures(
    encoders: Mapping[str, Encoder],
    metrics: Mapping[str, GenerativeMetric | ModelMetric],
    spec: ImageSpec,
    options: TrainerOptions,
) -> None:
    """Raises ConfigError if an encoder or a metric cannot be used on these images."""
    if not encoders:
        raise ConfigError("encoder is empty; choose one, such as encoder=pca, or several: encoder=[pca,classifier]")
    for name, encoder in encoders.items():
        if not isinstance(encoder, Encoder):
            raise ConfigError(f"encoder.{name} is set but not chosen; add it: encoder=[{','.join(encoders)}]")
    has_probabilities = any(encoder.has_probabilities for encoder in encoders.values())
    for metric in metrics.values():
        if isinstance(metric, GenerativeMetric):
            metric.check(spec, has_probabilities, options)


def _check_labels(labels: Classifier, setting: Setting, encoders: Mapping[str, Encoder]) -> None:
    """Raises ConfigError if a classifier cannot be learnt for the labels of samples, or is the one that measures."""
    known = setting.trusted.labels
    if setting.spec.num_classes < 2 or len(known) == 0 or bool((known == UNLABELLED).any()):
        raise ConfigError(
            "labels=classifier learns from labelled images of two classes or more that are known to be real, and there "
            "are none; choose another data set, give the regime trusted images (regime.num_trusted), or leave it out"
        )
    measuring = [encoder.classifier if isinstance(encoder, WithClasses) else encoder for encoder in encoders.values()]
    if labels in measuring:
        raise ConfigError(
            f"labels.seed={labels.seed} makes the labels those of the classifier that measures; choose another seed"
        )


@contextmanager
def _going_together() -> Iterator[None]:
    """What is refused in the block is the combination: each of the parts is in order."""
    try:
        yield
    except ConfigError as error:
        raise CombinationError(str(error)) from error


def _check_without_pool(generator: Generator, mitigation: Mitigation, regime: str) -> None:
    """Raises ConfigError if a part needs a finite pool, which the regime does not have."""
    if mitigation != Mitigation(NoSteering(), EqualWeights(), NoRefinement(), KeepAll()):
        raise ConfigError(
            f"the regime {regime} trains on no pool that a mitigation could act on; choose mitigation=control, or "
            "regime=replace"
        )
    if not (generator.takes_steps and generator.batch_size):
        raise ConfigError(
            f"the regime {regime} draws every batch anew, and {type(generator).__name__} is fitted without batches; "
            "choose another generator, or regime=replace_multiple"
        )
