"""What a part may look at, and ask for, at one generation; everything that it spends is metered."""

import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.chain import Chain
from collapse_bench.encoders.base import Encoded, Encoder, FittedEncoder
from collapse_bench.encoders.classifier import Classifier
from collapse_bench.fingerprint import code_version, fingerprint, foreign_source
from collapse_bench.generators.base import Generator, Model
from collapse_bench.generators.diffusion import NoisyModel
from collapse_bench.ledger import Ledger, become
from collapse_bench.pool import REAL, UNLABELLED, LivePool, Pool
from collapse_bench.records import Record, Score, Spent, pack_ids
from collapse_bench.seeding import RUN_LEVEL, Role, Stream, isolated_rng
from collapse_bench.store import Store
from collapse_bench.training import FitJob, Losses, TrainerOptions
from collapse_bench.types import Budget, ImageSpec
from collapse_bench.watch import Watch

_UNITS_OF_MEMORY_PER_MB = 2**20 if sys.platform == "darwin" else 2**10  # of getrusage


class Samples(Protocol):
    """What a part may ask of the sampler."""

    def sample(self, model: Model, seeds: Int64[Tensor, " n"]) -> tuple[Tensor, Int64[Tensor, " n"]]:
        """Images and their labels, a function of their seeds."""
        ...

    def sample_alone(self, model: Model, seeds: Int64[Tensor, " n"]) -> tuple[Tensor, Int64[Tensor, " n"]]:
        """As ``sample``, by this process alone, on the model's device."""
        ...


class Steers(Protocol):
    """What says which options the generator and the sampler have in each generation."""

    def steer_fit(self, generator: Generator, generation: int) -> Generator:
        """The recipe of a generation."""
        ...

    def steer_sampling(self, sampler: Any, generation: int) -> Samples:
        """The sampler of a generation."""
        ...


@dataclass(frozen=True, eq=False)
class Setting:
    """What every part may look at: the same through a chain. The held-out images are not here.

    Args:
        spec: shape and classes of the images.
        real: the real pool, for the regime and the ledger alone.
        trusted: the real images that a deciding part may know to be real; all, unless the regime says that origin is
            lost. With the training pool it is all that such a part may look at.
        hidden: provenance columns of the training pools that the regime declares lost.
        keeps_real: whether every training pool holds real images.
        labels: gives samples that were made without a condition a class; ``None`` leaves them without one.
        generator: the recipe as configured; ``generator_at`` is that of a generation.
        sampler: how models are sampled, as configured; ``sampler_at`` is that of a generation.
        steering: which of their options change with the generation.
        budget: what every arm may spend.
        trainer: where and in what arithmetic.
        store: where fits are remembered.
        watch: who watches.
    """

    spec: ImageSpec
    real: Pool
    trusted: Pool
    hidden: frozenset[str]
    keeps_real: bool
    labels: Classifier | None
    generator: Generator
    sampler: Samples
    steering: Steers
    budget: Budget
    trainer: TrainerOptions
    store: Store
    watch: Watch

    def generator_at(self, generation: int) -> Generator:
        """The recipe that the model of a generation is fitted with."""
        return self.steering.steer_fit(self.generator, generation)

    def sampler_at(self, generation: int) -> Samples:
        """What samples the model of a generation: candidates of it, and what is to be like them."""
        return self.steering.steer_sampling(self.sampler, generation)


class Now:
    """One generation of one chain, as its parts see it.

    Args:
        generation: which one.
        seed: of the chain.
        setting: what stays the same.
        chain: what earlier generations left behind.
    """

    def __init__(self, generation: int, seed: int, setting: Setting, chain: Chain) -> None:
        self.generation, self.seed, self.setting, self.chain = generation, seed, setting, chain
        self.losses: Losses = ()
        self.network_evaluations_per_sample = 0
        self._meter: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._real_images: dict[str, Int64[Tensor, " n"]] = {}
        self._reused: list[str] = []
        self._artefacts: dict[str, str] = {}
        self._learnt: dict[str, dict[str, Tensor]] = {}
        self._encoders: dict[str, FittedEncoder] = {}
        self._classifier: FittedEncoder | None = None
        if setting.trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(setting.trainer.device)

    def stream(self, role: Role) -> Stream:
        """The named random numbers of this generation for one role."""
        return Stream(self.seed, self.generation, role)

    @property
    def num_synthetic(self) -> int:
        """Images that a generation hands to the next unless the regime asks for another number."""
        return self.setting.budget.num_synthetic or len(self.setting.real)

    def fit(
        self,
        generator: Generator,
        train: Pool,
        weights: Float[Tensor, " n"],
        *,
        gate: Float[Tensor, " n"] | None = None,
        initial: Model | None = None,
        num_steps: int | None = None,
        role: Role = Role.FIT,
    ) -> Model:
        """A model fitted to a weighted pool, from the store where the same fit was done before.

        Args:
            generator: the family.
            train: images to fit.
            weights: sampling probability of each image, up to a factor.
            gate: highest log signal-to-noise ratio at which each image is trained on; one that is +inf for all images
                is none. The family must make a ``NoisyModel``.
            initial: a model to continue from; by default the chain's last fitted model where the generator starts
                warm, and otherwise fresh random parameters.
            num_steps: gradient steps; by default the budget of this generation.
            role: names the random numbers of the fit.

        Raises:
            TrainingError: if the loss becomes NaN, or nothing is left to train on.
        """
        setting = self.setting
        if gate is not None and (gate == math.inf).all():
            gate = None
        if initial is None and generator.start == "warm" and self.chain.fitted is not None:
            assert isinstance(self.chain.fitted, Model)
            initial = self.chain.fitted
        num_steps = setting.budget.num_fit_steps(self.generation) if num_steps is None else num_steps
        seed = self.stream(role).seed
        job = FitJob(num_steps, seed, setting.trainer, f"generation {self.generation}", setting.watch.step, gate)
        with isolated_rng(seed):
            model = generator.empty_model(setting.spec)
        assert gate is None or isinstance(model, NoisyModel), "the mitigation refuses other families"
        if initial is not None:
            model.load_state_dict(initial.state_dict())

        def build() -> Mapping[str, Tensor]:
            losses = generator.fit_model(model, train, weights, job)
            return {**model.state_dict(), "losses": torch.tensor(losses, dtype=torch.float64).view(-1, 2)}

        start = initial.state_dict() if initial is not None else None
        key = fingerprint(
            code_version(),
            generator,
            setting.spec,
            train.content_hash,
            weights,
            gate,
            num_steps,
            seed,
            setting.trainer,
            start,
        )
        with self.timed("fit"):
            tensors, reused = setting.store.get_or_build("fit", key, build, together=True)
        losses = tuple((int(step), loss) for step, loss in tensors.pop("losses").tolist())
        model.load_state_dict(tensors)
        if role is Role.FIT:
            self.losses = losses
        self.spend(gradient_steps=generator.gradient_steps(num_steps), networks_trained=generator.num_networks)
        if isinstance(train, LivePool):
            self.spend(other_samples=generator.batch_size * num_steps)
        seen = train.trained_on(weights, gate)
        self._see("generator" if role is Role.FIT else role.value, seen.image_id[seen.born == REAL])
        if reused:
            self._reused.append(role.value)
        return model.to(setting.trainer.device).eval()

    def sample(self, model: Model, count: int, role: Role) -> Pool:
        """Images for another end than the next pool; they are metered as such.

        Args:
            model: what makes them, a model of this generation.
            count: how many.
            role: names their random numbers, which are never those of candidates.
        """
        seeds = self.stream(role).image_seeds(0, count)
        with self.timed("sample"):
            sampler = self.setting.sampler_at(self.generation)
            images, labels = sampler.sample(model.to(self.setting.trainer.device), seeds)
        self.spend(other_samples=count)
        return model.as_pool(images, labels, seeds, start=0, born=self.generation)

    def artefact(
        self,
        name: str,
        pool: Pool,
        build: Callable[[Pool, FitJob], Mapping[str, Tensor]],
        *inputs: object,
        num_steps: int = 0,
        num_samples: int = 0,
    ) -> dict[str, Tensor]:
        """What is learnt once for the whole chain, from the store where the same thing was learnt before.

        It is the same at every generation and after a resume. Its cost is counted at the first generation that asks
        for it. So what it is learnt from must not depend on who asks: a model is sampled with
        ``setting.sampler_at(the model's generation)``.

        Args:
            name: of the thing, for example ``"verifier"``; unique within a mitigation.
            pool: all the images that it may see.
            build: makes its tensors from that pool, in the main process; random numbers come from the job's seed alone.
            inputs: whatever else decides what is built, to be hashed.
            num_steps: gradient steps that the building takes; 0 where no network is trained.
            num_samples: images that are drawn from a model for it.

        Raises:
            RuntimeError: if another thing was learnt under this name at this generation or an earlier one.
        """
        setting = self.setting
        seed = Stream(self.seed, RUN_LEVEL, f"{Role.ARTEFACT}/{name}").seed
        job = FitJob(num_steps, seed, setting.trainer, f"the {name}", setting.watch.step)
        what = (code_version(), foreign_source(build), name, pool.content_hash, pool.born)
        key = fingerprint(*what, seed, setting.trainer, num_steps, *inputs)
        if key not in self._learnt:
            with self.timed(name):
                self._learnt[key], reused = setting.store.get_or_build("artefact", key, lambda: build(pool, job))
            if self._count_once(name, key, num_steps, pool, num_samples) and reused:
                self._reused.append(name)
        return dict(self._learnt[key])

    def encoder(self, encoder: Encoder) -> FittedEncoder:
        """A fixed map from images to features, learnt once on the trusted real images.

        It is not the one that measures, but its recipe may be, as that of principal components of the pixels is by
        default: who chooses by it has a part of the score as objective, and reports say so.

        Args:
            encoder: the recipe; where it trains a classifier, that is counted like any other network.
        """
        setting, key = self.setting, fingerprint(encoder)
        if key not in self._encoders:  # a store that is turned off remembers nothing
            with self.timed("encoder"):
                self._encoders[key] = encoder.fit(setting.trusted, setting.spec, setting.trainer.exact, setting.store)
            seen = setting.trusted if encoder.learns_from_real else setting.trusted.take(torch.arange(0))
            self._count_once("encoder", key, encoder.gradient_steps, seen)
        return self._encoders[key]

    def encode(self, images: Tensor, encoder: Encoder) -> Encoded:
        """Candidates as an encoder sees them, to be judged; each network that looks at them is metered.

        Args:
            images: uint8 or float32.
            encoder: see ``encoder``.
        """
        fitted = self.encoder(encoder)
        self.spend(judging_evaluations=len(images) * fitted.num_networks)
        return fitted.encode(images)

    def stale_real(self, count: int) -> Pool:
        """``count`` trusted real images, drawn at random and the same at every generation, in the order of the pool.

        Whoever holds on to old real images takes these, so that anchoring and its control, which trains on them, have
        the same ones.
        """
        rng = Stream(self.seed, RUN_LEVEL, Role.STALE).generator()
        return self.setting.trusted.take(torch.randperm(len(self.setting.trusted), generator=rng)[:count].sort().values)

    def labelled(self, candidates: Pool) -> Pool:
        """Candidates with their conditions, or without these with what a classifier takes them for, if there is one.

        The classifier is learnt once, on the real images that are known to be real; it is never the one that measures.
        """
        recipe, setting = self.setting.labels, self.setting
        if recipe is None or not bool((candidates.labels == UNLABELLED).any()):
            return candidates
        with self.timed("labels"):
            if self._classifier is None:
                self._classifier = recipe.fit(setting.trusted, setting.spec, setting.trainer.exact, setting.store)
            probabilities = self._classifier.encode(candidates.images).probabilities
        assert probabilities is not None
        self._count_once("labels", fingerprint(recipe), recipe.gradient_steps, setting.trusted)
        return replace(candidates, labels=probabilities.argmax(1))

    def _count_once(self, artefact: str, key: str, num_steps: int, pool: Pool, num_samples: int = 0) -> bool:
        """Meters what is learnt once for the whole chain; whether this generation is the one that pays.

        Raises:
            RuntimeError: if it is not the thing that was paid for under its name.
        """
        paid = [name for record in self.chain.records for name in record.spent.artefacts]
        earlier = [record.spent.artefact_keys for record in self.chain.records if record.generation < self.generation]
        known = {name: its_key for keys in (*earlier, self._artefacts) for name, its_key in keys.items()}
        if known.get(artefact, key) != key:  # a mistake in a part, and no user's to mend
            raise RuntimeError(
                f"generation {self.generation}: {artefact!r} is learnt once for the whole chain, and what it is learnt "
                "from has changed since; leave out what depends on the generation, or name it after the generation"
            )
        if artefact in (*paid, *self._artefacts):
            return False
        self._artefacts[artefact] = key
        self.spend(gradient_steps=num_steps, networks_trained=int(num_steps > 0), other_samples=num_samples)
        self._see(artefact, pool.image_id[pool.born == REAL])
        return True

    def _see(self, part: str, image_ids: Int64[Tensor, " n"]) -> None:
        """Meters the real images that a trained part sees."""
        self._real_images[part] = torch.cat([self._real_images.get(part, image_ids[:0]), image_ids]).unique()

    def spend(self, **amounts: int) -> None:
        """Adds to the meter; the names are those of ``Spent``."""
        self._meter.update(amounts)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds the block's wall time to a phase and tells the watch that the phase begins."""
        self.setting.watch.phase(self.generation, phase)
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - begin

    def record(
        self,
        train: Pool,
        weights: Float[Tensor, " n"],
        model: Model,
        kept: Pool,
        scores: tuple[Score, ...],
        encoder: str,
    ) -> Record:
        """What is written down about this generation.

        Args:
            train: the training pool.
            weights: sampling probability of each of its images, up to a factor.
            model: the model after refinement.
            kept: the images handed on.
            scores: the numbers.
            encoder: identity of what they were measured with.
        """
        return Record(
            generation=self.generation,
            seed=self.seed,
            scores=scores,
            train_pool=train.counts_by_birth(),
            train_shares=train.shares_by_birth(weights),
            kept_labels="condition" if model.conditional else "none" if self.setting.labels is None else "classifier",
            num_parameters=model.num_parameters,
            losses=self.losses,
            encoder=encoder,
            spent=self.spent,
        )

    def ledger(
        self,
        train: Pool,
        weights: Float[Tensor, " n"],
        gate: Float[Tensor, " n"] | None,
        candidates: Sequence[pd.DataFrame],
        kept: Pool,
        curator: object,
    ) -> Ledger:
        """Where the images of this generation come from and what became of them.

        Args:
            train: the training pool.
            weights: sampling probability of each of its images, up to a factor.
            gate: see ``fit``.
            candidates: what was drawn for the next pool, draw by draw.
            kept: the images handed on.
            curator: what chose them; candidates that it dropped bear its name.
        """
        images = become(candidates, kept.table(), f"not kept by {type(curator).__name__}")
        if self.generation == 0:
            real = self.setting.real.table().assign(drawn=False, num_kept=1)
            images = pd.concat([real, images], ignore_index=True)
        weights = weights.double()
        gates = np.inf if gate is None else gate.numpy()
        return Ledger(images, train.table().assign(weight=(weights / weights.sum()).numpy(), gate=gates))

    @property
    def spent(self) -> Spent:
        """What this generation has cost so far."""
        return Spent(
            **self._meter,
            network_evaluations_per_sample=self.network_evaluations_per_sample,
            peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _UNITS_OF_MEMORY_PER_MB,
            peak_device_memory_mb=self._peak_on_device() // 2**20,
            real_images_seen={part: len(ids) for part, ids in self._real_images.items()},
            real_images={part: pack_ids(ids.tolist()) for part, ids in self._real_images.items()},
            artefacts=tuple(self._artefacts),
            artefact_keys=dict(self._artefacts),
            reused=tuple(self._reused),
            seconds={phase: round(seconds, 3) for phase, seconds in self._seconds.items()},
        )

    def _peak_on_device(self) -> int:
        """Most bytes that tensors had on the GPU since this generation began; 0 without one."""
        device = self.setting.trainer.device
        return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
