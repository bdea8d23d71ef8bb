"""A classifier trained on real images, whose last activations are features and whose output is classes."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from collapse_bench.encoders.base import Encoded, Encoder, FittedEncoder
from collapse_bench.errors import ConfigError
from collapse_bench.fingerprint import code_version, fingerprint
from collapse_bench.networks.resnet import ResNet
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.seeding import RUN_LEVEL, Role, Stream, isolated_rng
from collapse_bench.store import Store
from collapse_bench.training import FitJob, Optimisation, TrainerOptions, train
from collapse_bench.types import ImageSpec, to_float


@final
@dataclass(frozen=True)
class Classifier(Encoder):
    """A small residual network, trained once on real images that are not held out and then frozen.

    Its seed is its own and not the run's: all runs with equal real images measure with the same network.

    Args:
        width: channels of the first stage, a multiple of 8; features are four times as many.
        num_blocks: residual blocks per stage.
        num_steps: gradient steps.
        seed: of its parameters and batches.
        optimisation: how it is trained.
    """

    has_probabilities: ClassVar[bool] = True

    width: int
    num_blocks: int
    num_steps: int
    seed: int
    optimisation: Optimisation

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"Classifier.width must be a positive multiple of 8, got {self.width}")
        if self.num_blocks < 1 or self.num_steps < 1:
            raise ConfigError("Classifier.num_blocks and Classifier.num_steps must be at least 1")

    @property
    def gradient_steps(self) -> int:
        """Gradient steps that a fit takes."""
        return self.num_steps

    def check(self, real: Pool, spec: ImageSpec) -> None:
        """Raises ConfigError if there is only one class, or no image, or one without a label."""
        if spec.num_classes < 2 or len(real) == 0 or bool((real.labels == UNLABELLED).any()):
            raise ConfigError(
                "encoder=classifier needs labelled images of two classes or more; use encoder=pixels metrics=features"
            )

    def fit(self, real: Pool, spec: ImageSpec, options: TrainerOptions, store: Store) -> FittedEncoder:
        """The classifier of these real images, from the store where it was trained before.

        Raises:
            ConfigError: see ``check``.
        """
        self.check(real, spec)
        seed = Stream(self.seed, RUN_LEVEL, Role.ARTEFACT).seed
        with isolated_rng(seed):
            network = ResNet(spec, self.width, self.num_blocks)

        def build() -> dict[str, Tensor]:
            def loss(images: Tensor, labels: Tensor) -> Tensor:
                return F.cross_entropy(network(images), labels, reduction="none")

            job = FitJob(self.num_steps, seed, options, "the encoder")
            train(network, loss, real, torch.ones(len(real)), self.optimisation, job)
            return network.state_dict()

        key = fingerprint(code_version(), self, spec, real.content_hash, options)
        tensors, _ = store.get_or_build("encoder", key, build)
        network.load_state_dict(tensors)
        return FrozenClassifier(network.to(options.device).eval())


@final
class FrozenClassifier(FittedEncoder):
    """A trained classifier that is never trained again."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)

    def forward(self, images: Tensor) -> Encoded:
        """Features and class probabilities; see ``FittedEncoder.forward``."""
        features = self.network.features(to_float(images))
        return Encoded(features, self.classify(features))

    def classify(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Class probabilities of images with these features."""
        # Softmax in float64: a confident classifier rounds to exactly 1 in float32.
        return self.network.head(features).double().softmax(1)
