"""A network that tells real images from samples."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from collapse_bench.errors import ConfigError
from collapse_bench.networks.resnet import ResNet
from collapse_bench.pool import Pool
from collapse_bench.seeding import isolated_rng
from collapse_bench.training import FitJob, Optimisation, train
from collapse_bench.types import ImageSpec, to_float

_GENERATED, _REAL = 0, 1


@final
@dataclass(frozen=True, kw_only=True)
class Discriminator:
    """A small residual network with two classes, generated and real; it does not see the class of an image.

    Args:
        width: channels of the first stage, a multiple of 8.
        num_blocks: residual blocks per stage.
        num_steps: gradient steps.
        optimisation: how it is trained.
    """

    width: int
    num_blocks: int
    num_steps: int
    optimisation: Optimisation

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"the discriminator's width must be a positive multiple of 8, got {self.width}")
        if self.num_blocks < 1 or self.num_steps < 1:
            raise ConfigError("the discriminator's num_blocks and num_steps must be at least 1")

    def fit(
        self,
        real: Pool,
        generated: Pool,
        spec: ImageSpec,
        job: FitJob,
        view: Callable[[Tensor], Tensor] = lambda images: images,
    ) -> dict[str, Tensor]:
        """Parameters that tell the two pools apart.

        Args:
            real: one of them.
            generated: the other.
            spec: shape of what the network sees.
            job: steps, seed, device.
            view: what the network sees of a batch of images; may draw from torch's global random state.
        """
        with isolated_rng(job.seed):
            network = self._network(spec)

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(network(view(images)), labels, reduction="none")

        sides = ((generated, _GENERATED), (real, _REAL))
        pool = Pool.concat([replace(pool, labels=torch.full_like(pool.labels, side)) for pool, side in sides])
        train(network, loss, pool, torch.ones(len(pool)), self.optimisation, job)
        return network.state_dict()

    @torch.no_grad()
    def realness(
        self, images: Tensor, parameters: dict[str, Tensor], spec: ImageSpec, device: torch.device
    ) -> Float[Tensor, " n"]:
        """Log odds that an image is real, on the CPU: higher is more real.

        Args:
            images: uint8 or float32.
            parameters: from ``fit``.
            spec: shape of the images.
            device: where they are judged.
        """
        with isolated_rng(0):  # an unfitted network draws parameters, which are overwritten at once
            network = self._network(spec)
        network.load_state_dict(parameters)
        network.to(device).eval()
        logits = torch.cat([network(to_float(batch.to(device))).cpu() for batch in images.split(1000)])
        return logits[:, _REAL] - logits[:, _GENERATED]

    def _network(self, spec: ImageSpec) -> ResNet:
        return ResNet(replace(spec, class_names=("generated", "real")), self.width, self.num_blocks)
