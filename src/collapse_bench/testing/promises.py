"""What the parts of the benchmark promise, each as a function that raises AssertionError where one is broken.

Our own tests call them for every option of every group, ``contracts`` for one option of a user's.
"""

import copy
import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Literal

import torch

from collapse_bench.analysis.lineage import load_ledger
from collapse_bench.analysis.runs import Run
from collapse_bench.cli.config import build, classes, conf_folders
from collapse_bench.datasets.base import Dataset
from collapse_bench.fingerprint import fingerprint
from collapse_bench.generators.base import Model
from collapse_bench.loop import Parts, run_generations
from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.records import Record
from collapse_bench.store import Store
from collapse_bench.testing.chains import assemble_config, composed, now_of, opened_run_dir, parts_of
from collapse_bench.testing.image_sets import FIVE_CLASSES
from collapse_bench.testing.witness import GarbledRegime, with_noise_held_out, witnessed


@dataclass(frozen=True)
class Option:
    """One option of a group of the configuration.

    Args:
        group: such as ``"mitigation"``.
        name: such as ``"neon"``.
        config_dir: folder of a user's own options that it is in; ``None`` for one of ours.
        overrides: what it cannot do without.
    """

    group: str
    name: str
    config_dir: str | Path | None = None
    overrides: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """Where it is written down."""
        return conf_folders(self.config_dir)[-1] / self.group / f"{self.name}.yaml"

    def composed(self, *overrides: str) -> dict[str, Any]:
        """The whole configuration with this option, as plain values."""
        own = f"{self.group}={self.name}"
        return composed(own, *self.overrides, *overrides, config_dir=self.config_dir)

    def built(self) -> Any:
        """The object, or mapping of objects, that it describes."""
        return build(self.composed()[self.group], self.group)


def options(group: str, config_dir: str | Path | None = None) -> list[Option]:
    """All options of a group: ours, or those in a user's folder."""
    folder = conf_folders(config_dir)[-1] / group
    return [Option(group, path.stem, config_dir) for path in sorted(folder.glob("*.yaml"))]


# Of every option


def says_what_it_is(option: Option) -> None:
    """The first line of the file is a comment of more than 20 characters."""
    first = option.file.read_text().removeprefix("# @package _global_\n").partition("\n")[0]
    assert first.startswith("# "), f"{option.file}: the first line is no comment that says what the option is"
    assert len(first) > 20, f"{option.file}: the first line says too little: {first!r}"


def shows_every_argument(option: Option) -> None:
    """The file has every argument of every class that it names, and no other, so that all can be changed."""
    node = option.composed()[option.group]
    found = classes(node)
    assert found, f"{option.file} names no class: there is no _target_ in it"
    for path, cls in found.items():
        written = node
        for key in filter(None, path.split(".")):
            written = written[key]
        arguments = set(inspect.signature(cls).parameters)
        assert set(written) - {"_target_"} == arguments, (
            f"{option.file}, {path or 'top'}: {cls.__name__} has the arguments {sorted(arguments)}, written are "
            f"{sorted(set(written) - {'_target_'})}"
        )


def are_frozen_dataclasses(option: Option) -> None:
    """The classes that it names are frozen dataclasses, so that they can be hashed by their arguments."""
    for cls in classes(option.composed()[option.group]).values():
        frozen = dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen  # pyright: ignore
        assert frozen, f"{cls.__qualname__} is no frozen dataclass: decorate it with @dataclass(frozen=True)"


def can_be_hashed(option: Option) -> None:
    """It has the same hash each time it is built: by the arguments of its classes, which metrics keep as attributes."""
    if option.group == "metrics":
        hashes = [fingerprint([metric.settings for metric in option.built().values()]) for _ in range(2)]
    else:
        are_frozen_dataclasses(option)
        hashes = [fingerprint(option.built()) for _ in range(2)]
    assert hashes[0] == hashes[1], f"{option.name} is another one each time it is built"


# Of regimes and mitigations: a chain


def run_tiny(
    folder: Path,
    *overrides: str,
    seed: int = 0,
    keep: Literal["last", "all"] = "all",
    store: str = "store",
    config_dir: str | Path | None = None,
) -> tuple[Record, ...]:
    """The records of a chain in ``folder / "run"``, with the store ``folder / store``."""
    parts = parts_of(composed(*overrides, config_dir=config_dir), folder / store)
    with opened_run_dir(folder / "run") as run_dir:
        return run_generations(parts, seed, run_dir, keep)


def keeps_the_books(folder: Path, records: Sequence[Record]) -> None:
    """A chain that ``run_tiny`` has made there is whole: what it kept, why, where from, and what it was measured by.

    Args:
        folder: as for ``run_tiny``, with ``keep="all"``.
        records: of the chain.
    """
    assert [record.generation for record in records] == list(range(len(records)))
    assert list(records[0].train_pool) == ["real"], "generation 0 is fitted on real images only"
    for record in records:
        kept = Pool.load(folder / "run" / f"gen_{record.generation:03d}" / "kept.safetensors")
        assert len(kept) == record.spent.kept, "a curator keeps exactly what is needed"
        assert (kept.born == record.generation).all(), "what is handed on is of this generation"
        assert len(kept.image_id.unique()) == len(kept), "no image is kept twice"
        assert kept.images.dtype == torch.uint8
        assert "candidate" not in kept.reasons, "every kept image says why: candidates.take(index, because='...')"
        assert record.spent.candidates >= record.spent.kept
        assert {score.of for score in record.scores} >= {"model", "kept", "control"}
        assert all(score.num_samples > 0 and score.num_reference > 0 for score in record.scores)
        for of in ("model", "kept", "control"):
            assert any(math.isfinite(score.value) for score in record.scores if score.of == of), f"no number of {of}"
    ledger = load_ledger(Run(folder / "run", {}, {}, {"state": "complete"}, tuple(records)))
    assert ledger["drawn"].sum() == sum(record.spent.candidates for record in records)
    assert ledger.loc[ledger["drawn"], "num_kept"].sum() == sum(record.spent.kept for record in records)
    assert ledger.loc[ledger["trained_in"].map(len) > 0, "kept"].all(), "what is trained on was handed on"


def gives_the_same_again(folder: Path, *overrides: str, config_dir: str | Path | None = None) -> None:
    """A second chain, that reuses nothing of the first and deletes what it no longer needs, has the same records."""
    first = run_tiny(folder / "first", *overrides, config_dir=config_dir)
    torch.manual_seed(int(first[-1].seed) + 1)  # no part may draw from the global random state
    again = run_tiny(folder / "again", *overrides, config_dir=config_dir, keep="last")
    assert [record.deterministic for record in first] == [record.deterministic for record in again]


# Of mitigations, in a tiny chain


@dataclass(frozen=True, eq=False)
class Trial:
    """A tiny chain with a mitigation that was watched while it ran; several promises look at it.

    Args:
        folder: the run is in ``folder / "run"``; all its models and pools are kept.
        config: what was run.
        parts: the same, built.
        records: of the chain.
    """

    folder: Path
    config: dict[str, Any]
    parts: Parts
    records: tuple[Record, ...]

    def pool(self, generation: int) -> Pool:
        """What a generation handed on."""
        return Pool.load(self.folder / "run" / f"gen_{generation:03d}" / "kept.safetensors")

    def now(self, generation: int) -> Now:
        """A generation, after the whole chain."""
        with opened_run_dir(self.folder / "run") as run_dir:
            return now_of(self.parts, run_dir, generation)


_FOLDER = TemporaryDirectory()  # of all trials, and the one store that they share; gone at exit
_STORE = Path(_FOLDER.name) / "store"


@cache
def tried(option: Option, *overrides: str, measured: bool = True) -> Trial:
    """The trial of a mitigation: run once, however many promises ask for it.

    Its slots must leave what they are given as it is, and its weights must be weights.

    Args:
        option: of the group mitigation.
        overrides: of the chain.
        measured: whether there are scores.

    Raises:
        CombinationError: if it does not go with the regime.
        AssertionError: if it changes what it is given.
    """
    config = option.composed(*overrides)
    if not measured:
        config["metrics"] = {}
    parts = parts_of(config, _STORE)
    folder = Path(mkdtemp(prefix=f"{option.name}-", dir=_FOLDER.name))
    with opened_run_dir(folder / "run") as run_dir:
        watched = replace(parts, mitigation=witnessed(parts.mitigation))
        return Trial(folder, config, parts, run_generations(watched, 0, run_dir, "all"))


def kept_images_are_what_their_seeds_give(trial: Trial) -> None:
    """What the last generation kept is, pixel by pixel, what its model makes of the recorded seeds.

    A grey level may be rounded the other way, because images are made in other batches. A curator that says so
    (``changes_images``) may hand on other pixels.
    """
    last = trial.records[-1].generation
    kept, mitigation = trial.pool(last), trial.parts.mitigation
    sampler = mitigation.steering.steer_sampling(trial.parts.sampler, last)
    model = trial.now(last).chain.model
    assert isinstance(model, Model)
    images, labels = sampler.sample(model, kept.seed)
    if trial.parts.setting.labels is None:
        assert torch.equal(labels, kept.labels), "a kept image has another condition than its seed gives"
    differences = (images.double() - kept.images.double()).abs()
    if mitigation.curator.changes_images:
        assert bool((differences > 1).any()), "a curator that changes no image says so: changes_images = False"
    else:
        assert bool((differences <= 1).all()), "kept images are not what their seeds give: set changes_images = True"


def gives_the_same_whatever_is_held_out(trial: Trial) -> None:
    """A second chain has the same models and pools, bit for bit.

    It is measured against noise, reuses nothing of the first one, and finds torch's global random state elsewhere.
    """
    data = build(trial.config["dataset"], "dataset").load()
    parts = assemble_config({**trial.config, "metrics": {}}, with_noise_held_out(data), _STORE)
    torch.manual_seed(int(trial.records[-1].seed) + 1)
    with TemporaryDirectory() as store:
        setting = replace(parts.setting, store=Store(Path(store)))
        _has_the_same_models_and_pools(trial, replace(parts, setting=setting))


def looks_at_no_hidden_column(trial: Trial) -> None:
    """Garbage in the columns that the regime declares lost changes no model and no pool.

    Args:
        trial: under a regime that hides the origin of images.
    """
    parts = parts_of({**trial.config, "metrics": {}}, _STORE)
    assert parts.regime.hidden, "this regime hides nothing"
    _has_the_same_models_and_pools(trial, replace(parts, regime=GarbledRegime(parts.regime)))


def _has_the_same_models_and_pools(trial: Trial, parts: Parts) -> None:
    with TemporaryDirectory() as folder:
        with opened_run_dir(Path(folder) / "run") as run_dir:
            run_generations(parts, trial.records[-1].seed, run_dir, "all")
        for record in trial.records:
            name = f"gen_{record.generation:03d}"
            both = [path / "run" / name for path in (trial.folder, Path(folder))]
            files = [sorted(path.name for path in generation.glob("*.safetensors")) for generation in both]
            assert files[0] == files[1]
            for file in files[0]:
                assert (both[0] / file).read_bytes() == (both[1] / file).read_bytes(), f"another {name}/{file}"


def looks_at_no_untrusted_real_image(trial: Trial) -> None:
    """Noise in place of the real pool changes no decision: beside the training pool only trusted images are looked at.

    Args:
        trial: under a regime that trusts some real images only.
    """
    now = trial.now(1)
    setting, mitigation = now.setting, trial.parts.mitigation
    assert len(setting.trusted) < len(setting.real), "this regime trusts all real images"
    pool = trial.parts.regime.mix(now)

    def noise(real: Pool) -> Pool:
        rng = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, real.images.shape, generator=rng).to(real.images.dtype)
        return replace(real, images=images, labels=real.labels.flip(0), image_id=real.image_id.flip(0))

    def decisions(real: Pool) -> Mapping[str, torch.Tensor]:
        # Without a store: what is learnt from other images is then another thing.
        nothing = Store(trial.folder, enabled=False)
        now = Now(1, trial.records[-1].seed, replace(setting, real=real, store=nothing), trial.now(1).chain)
        weights = mitigation.weigher.weigh(pool.visible(), now)
        gate = mitigation.weigher.gate(pool.visible(), now)
        fitted = now.chain.fitted
        assert isinstance(fitted, Model)
        model = mitigation.refiner.refine(fitted, pool, now)
        kept = mitigation.curator.curate(
            mitigation.steering.steer_sampling(trial.parts.sampler, 1).stream(model, now, 20), 20, now
        )
        own = {"weights": weights, "gate": weights if gate is None else gate, "kept": kept.seed, "images": kept.images}
        return {**own, **model.state_dict()}

    true, garbage = decisions(setting.real), decisions(noise(setting.real))
    for what in true:
        assert torch.equal(true[what], garbage[what]), f"the mitigation looks at untrusted real images: {what}"


# Of data sets


def is_split_in_three(dataset: Dataset) -> None:
    """The real pool, the reference and the control set share no image, and what they hold is what the spec says."""
    data = dataset.load()
    sets = {"real pool": data.pool, "reference": data.held_out.reference, "control set": data.held_out.control}
    ids = torch.cat([pool.image_id for pool in sets.values()])
    assert len(ids.unique()) == len(ids), "an image is in two sets"
    for name, pool in sets.items():
        assert pool.images.shape[1:] == data.spec.shape, f"{name}: images of another shape than the spec says"
        assert str(pool.images.dtype) == f"torch.{data.spec.dtype}"
        assert len(pool) > 1, f"the {name} has fewer than two images"
        found = pool.labels.unique().tolist()
        assert found == list(range(data.spec.num_classes)), f"the {name} has the classes {found} of {data.spec}"
    assert data.name == dataset.name


def loads_the_same_again(dataset: Dataset) -> None:
    """Two loads give the same images in the same sets, whatever the global random state."""
    torch.manual_seed(1)
    first = dataset.load().content_hash
    torch.manual_seed(2)
    assert dataset.load().content_hash == first


# Of metrics


Sides = Mapping[str, ImageSet]


def images_of_all_sides(seed: int = 20) -> dict[str, ImageSet]:
    """Images for every side that a metric may look at, in all columns."""
    rng = torch.Generator().manual_seed(seed)
    counts = {"generated": 120, "reference": 150, "training": 90, "real": 100}
    return {side: FIVE_CLASSES.fresh(count, rng) for side, count in counts.items()}


def feed(metric: GenerativeMetric, sides: Sides) -> GenerativeMetric:
    """The metric, which has seen these images."""
    for side in metric.sides:
        metric.update(sides[side], side=side)
    return metric


def plain(estimates: Mapping[str, Estimate]) -> dict[str, tuple[str, ...]]:
    """Estimates as text, in which NaN equals NaN."""
    return {name: tuple(repr(field) for field in estimate) for name, estimate in estimates.items()}


def numbers_are_well_formed(metric: GenerativeMetric, sides: Sides) -> None:
    """Every number has a direction, and an interval, if any, that it lies in."""
    estimates = feed(metric, sides).compute()
    assert estimates, f"{type(metric).__name__} gives no number"
    for name, estimate in estimates.items():
        assert isinstance(estimate.value, (float, int)), f"{name} is {estimate.value!r}, which is no Python number"
        assert estimate.better in {"lower", "higher", "one", "floor"}, f"{name}: better={estimate.better!r}"
        assert (estimate.low is None) == (estimate.high is None), f"{name} has half an interval"
        if estimate.low is not None and estimate.high is not None:
            assert estimate.low <= estimate.value <= estimate.high, f"{name} is outside its interval"
        assert estimate.null is None or math.isfinite(estimate.null)
    assert any(math.isfinite(estimate.value) for estimate in estimates.values()), "no number of it is finite"


def order_does_not_matter(metric: GenerativeMetric, sides: Sides) -> None:
    """No number depends on the order of the images, or on how many are added at once."""
    expected = plain(feed(copy.deepcopy(metric), sides).compute())
    rng = torch.Generator().manual_seed(0)
    shuffled = {side: images.take(torch.randperm(len(images), generator=rng)) for side, images in sides.items()}
    assert plain(feed(copy.deepcopy(metric), shuffled).compute()) == expected, "the order of the images matters"
    parts = copy.deepcopy(metric)
    for side in parts.sides:
        for part in (slice(50), slice(50, 51), slice(51, None)):
            parts.update(sides[side].take(part), side=side)
    assert plain(parts.compute()) == expected, "several updates are not one"


def reset_forgets_generated_images_alone(metric: GenerativeMetric, sides: Sides) -> None:
    """After ``reset`` the same images give the same numbers; what is kept with ``once`` is of the other sides alone."""
    expected = plain(feed(copy.deepcopy(metric), sides).compute())
    other = images_of_all_sides(seed=21)["generated"].take(slice(80))
    feed(metric, {**sides, "generated": other}).compute()
    metric.reset()
    metric.update(sides["generated"], side="generated")
    assert plain(metric.compute()) == expected


def computing_changes_nothing(metric: GenerativeMetric, sides: Sides) -> None:
    """Neither the images nor torch's global random state change, and computing twice gives the same."""
    columns = ("images", "labels", "features", "probabilities", "born")
    images = {(side, name): sides[side].column(name).clone() for side in sides for name in columns}
    state = torch.get_rng_state()
    first = plain(feed(metric, sides).compute())
    metric._computed = None  # else torchmetrics answers from its cache
    assert plain(metric.compute()) == first
    assert torch.equal(torch.get_rng_state(), state), "torch's global random state was used"
    assert all(torch.equal(sides[side].column(name), before) for (side, name), before in images.items())
