"""Self-verification: the model judges its own samples."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.mitigations.selection import Selection, highest_of_each_group
from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw
from collapse_bench.seeding import Role, isolated_rng, numbers_in_common
from collapse_bench.types import to_float


@final
@dataclass(frozen=True, kw_only=True)
class SelfVerification(Selection):
    """Keeps the candidates for which the model that made them has the lowest loss.

    After Fu et al. 2026, of whom we know the abstract: the model's own confidence is the judge. Here that is its
    training loss (negative ELBO, flow-matching error, negative log-likelihood), averaged over draws of the noise in
    it: the same noise levels and noises for all candidates, so that no image is kept for an easy draw. Of a population
    every member judges what it has made, and keeps its share, because losses of families have different units. It
    looks at no real image. With ``candidates_per_kept=1`` it equals the control bit for bit.

    Args:
        candidates_per_kept: see ``Selection``.
        num_draws: noise draws, at each of which every image is judged; more make the judgement sharper.
    """

    reason: ClassVar[str] = "self-verified"

    num_draws: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_draws < 1:
            raise ConfigError(f"mitigation.curator.num_draws must be at least 1, got {self.num_draws}")

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """Those of lowest loss, as many of each source as its share of the candidates."""
        losses = torch.zeros(len(candidates), dtype=torch.float64)
        for k, maker in enumerate(draw.model.makers):
            own = (candidates.source == k).nonzero().flatten()
            losses[own] = mean_losses(maker, candidates.take(own), self.num_draws, now.stream(Role.CURATE).seed)
            now.spend(judging_evaluations=len(own) * self.num_draws * maker.num_networks)
        return highest_of_each_group(-losses, candidates.source, num_needed)


@torch.no_grad()
def mean_losses(model: Model, pool: Pool, num_draws: int, seed: int) -> Float[Tensor, " n"]:
    """Loss of each image, averaged over draws that all images have in common, float64 on the CPU.

    Args:
        model: whose loss.
        pool: the images.
        num_draws: of noise level and noise.
        seed: of the draws.
    """
    means = []
    for batch in torch.arange(len(pool)).split(1000):
        images = to_float(pool.images[batch]).to(model.device)
        labels = pool.labels[batch].to(model.device)
        with isolated_rng(seed), numbers_in_common():
            means.append(torch.stack([model.loss(images, labels) for _ in range(num_draws)]).mean(0).cpu().double())
    return torch.cat(means) if means else torch.zeros(0, dtype=torch.float64)
