"""Sampling of a population: every image by the sampler of the member that makes it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.generators.population import PopulationModel
from collapse_bench.samplers.base import Sampler


@final
@dataclass(frozen=True, kw_only=True)
class PopulationSampler(Sampler):
    """Gives each image to the sampler of its member.

    What all samplers have is said for all members at once, on top of what each says for itself.

    Args:
        temperature: factor of the members' own.
        truncation: of all members; ``None`` leaves them their own.
        guidance: is added to the members' own.
        quantize: see ``Sampler``; the members' own is not looked at.
        batch_size: see ``Sampler``; likewise, members share a batch.
        members: the samplers, by the names of the generator's members.
    """

    members: Mapping[str, Sampler]

    model_type: ClassVar[type[Model]] = PopulationModel

    @property
    def num_outputs(self) -> int:
        """The mean over the members, rounded up."""
        return _mean([sampler.num_outputs for sampler in self.members.values()])

    @property
    def num_evaluations(self) -> int:
        """The mean over the members, rounded up."""
        return _mean([self.of_member(name).num_evaluations for name in self.members])

    def of_member(self, name: str) -> Sampler:
        """The sampler of a member, with what is said for all."""
        own = self.members[name]
        return replace(
            own,
            temperature=self.temperature * own.temperature,
            truncation=own.truncation if self.truncation is None else self.truncation,
            guidance=self.guidance + own.guidance,
        )

    def check(self, model: Model) -> None:
        """Raises ConfigError as ``Sampler.check`` does, for every member, or if the members are others."""
        super().check(model)
        assert isinstance(model, PopulationModel)
        if set(self.members) != set(model.members):
            raise ConfigError(
                f"the generator's members are {', '.join(model.members)} and the sampler's "
                f"{', '.join(self.members) or 'none'}; give each one of sampler.members"
            )
        for name, member in model.members.items():
            self.of_member(name).check(member)

    def sample_batch(
        self, model: Model, seeds: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """See ``Sampler.sample_batch``."""
        assert isinstance(model, PopulationModel)
        images = torch.empty(len(seeds), *model.spec.shape, device=seeds.device)
        source = model.source_of(seeds)
        for k, (name, member) in enumerate(model.members.items()):
            mine = (source == k).nonzero().flatten()
            if len(mine):
                images[mine] = self.of_member(name).sample_batch(member, seeds[mine], labels[mine])
        return images


def _mean(counts: list[int]) -> int:
    return math.ceil(sum(counts) / len(counts))
