"""Several generators of different kinds that make the samples of a generation together."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self, cast, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Generator, Model
from collapse_bench.pool import Pool
from collapse_bench.seeding import RUN_LEVEL, Stream, image_uniform
from collapse_bench.training import FitJob, Losses
from collapse_bench.types import ImageSpec

MEMBER_DRAW = (1 << 20) + 1
"""Number of the per-image draw that decides the member; samplers count their own draws from 0."""


@final
class PopulationModel(Model):
    """A mixture of fitted models in equal parts; an image's seed decides which of them makes it.

    Args:
        spec: images that they make.
        members: the models, by name; all conditional, or none of them.
    """

    def __init__(self, spec: ImageSpec, members: Mapping[str, Model]) -> None:
        super().__init__(spec, conditional=next(iter(members.values())).conditional)
        self._members = nn.ModuleDict(members)

    @property
    def members(self) -> dict[str, Model]:
        """The models, by name."""
        return {name: cast(Model, member) for name, member in self._members.items()}

    @property
    def family(self) -> str:
        """All families."""
        return f"population of {', '.join(member.family for member in self.members.values())}"

    @property
    def sources(self) -> tuple[str, ...]:
        """The members' names."""
        return tuple(self.members)

    @property
    def makers(self) -> tuple[Model, ...]:
        """The members."""
        return tuple(self.members.values())

    def source_of(self, seeds: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """The member that makes each image: every one of them equally often."""
        return (image_uniform(seeds, (), MEMBER_DRAW) * len(self.sources)).long()

    @property
    def has_guidance(self) -> bool:
        """Whether all members have learnt to make images with and without a class."""
        return all(member.has_guidance for member in self.members.values())

    def loss(self, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The mean of what the members minimise, one value per image.

        It compares generations of one population and nothing else, because families differ in the unit of their loss.

        Args:
            images: in [-1, 1].
            labels: classes; ignored by unconditional members.
        """
        return torch.stack([member.loss(images, labels) for member in self.members.values()]).mean(0)


@final
@dataclass(frozen=True, kw_only=True)
class Population(Generator):
    """Different generators, each fitted on the same pool, whose samples are mixed in equal parts.

    For synthetic data of diverse sources: what one family loses another may keep. Every member takes all the gradient
    steps of the generation's budget, so that each is as good as it would be alone and the variety of the models is the
    only difference; the steps of all members are counted.

    Args:
        start: warm or from scratch, see ``Generator``; that of all members.
        members: the generators, by the names that the provenance of samples uses.
    """

    members: Mapping[str, Generator]

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ConfigError(f"generator.members needs two generators or more, got {', '.join(self.members) or 0}")
        for name, member in self.members.items():
            if not name.isidentifier() or isinstance(member, Population):
                raise ConfigError(f"generator.members.{name}: a member has a plain name and is not itself a population")
            if member.start != self.start:
                raise ConfigError(
                    f"generator.members.{name}.start={member.start} and generator.start={self.start}: a population "
                    "starts as a whole; leave the members' out, they follow"
                )

    @property
    def takes_steps(self) -> bool:
        """Whether the fit of every member is a number of gradient steps."""
        return all(member.takes_steps for member in self.members.values())

    @property
    def num_networks(self) -> int:
        """One or more for each member."""
        return sum(member.num_networks for member in self.members.values())

    @property
    def batch_size(self) -> int:
        """The sum over the members: each draws batches of its own."""
        return sum(member.batch_size for member in self.members.values())

    def with_learning_rate_times(self, factor: float) -> Self:
        """Those of all members."""
        slower = {name: member.with_learning_rate_times(factor) for name, member in self.members.items()}
        return replace(self, members=slower)

    def gradient_steps(self, num_steps: int) -> int:
        """The sum over the members, each of which has the whole budget."""
        return sum(member.gradient_steps(num_steps) for member in self.members.values())

    def empty_model(self, spec: ImageSpec) -> PopulationModel:
        """Unfitted members.

        Raises:
            ConfigError: if a family cannot make such images, or some members are conditional and others are not.
        """
        models = {name: member.empty_model(spec) for name, member in self.members.items()}
        if len({model.conditional for model in models.values()}) > 1:
            conditional = [name for name, model in models.items() if model.conditional]
            raise ConfigError(
                f"of the population's members only {', '.join(conditional)} see the class; set "
                "generator.members.NAME.conditional to the same for all"
            )
        return PopulationModel(spec, models)

    def fit_model(self, model: Model, pool: Pool, weights: Float[Tensor, " n"], job: FitJob) -> Losses:
        """Fits one member after the other, each with random numbers of its own; see ``Generator.fit_model``.

        Returns:
            The mean over the members that have training losses; see ``PopulationModel.loss`` for what it is worth.
        """
        assert isinstance(model, PopulationModel)
        model.to(job.options.device).learn_label_shares(pool, weights)
        losses = []
        for k, (name, member) in enumerate(self.members.items()):

            def on_step(step: int, num_steps: int, loss: float, before: int = k) -> None:
                job.on_step((before * num_steps + step) // len(self.members), num_steps, loss)

            seed = Stream(job.seed, RUN_LEVEL, name).seed
            of_member = replace(job, seed=seed, what=f"{job.what}, {name}", on_step=on_step)
            losses.append(member.fit_model(model.members[name], pool, weights, of_member))
        logged = [of_member for of_member in losses if of_member]
        return tuple(
            (entries[0][0], sum(loss for _, loss in entries) / len(entries)) for entries in zip(*logged, strict=True)
        )
