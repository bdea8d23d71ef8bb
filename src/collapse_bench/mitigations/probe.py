"""A linear softmax probe on frozen features, which several curators judge by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from collapse_bench.encoders.base import Encoder
from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.selection import check_features, check_real
from collapse_bench.now import Now, Setting
from collapse_bench.pool import UNLABELLED


@final
@dataclass(frozen=True, kw_only=True)
class Probe:
    """Multinomial logistic regression on standardised features of all trusted real images, fitted once.

    Args:
        features: what the classes are read from.
        ridge: weight of the squared parameters beside the mean cross-entropy.
    """

    features: Encoder
    ridge: float

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise ConfigError(f"mitigation.curator.probe.ridge must be above 0, got {self.ridge}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if there are no real images with labels to learn."""
        check_real(setting)
        if bool((setting.trusted.labels == UNLABELLED).any()):
            raise ConfigError("mitigation.curator.probe needs labelled real images; choose another mitigation=...")
        check_features(self.features, setting)

    def probabilities(self, images: Tensor, now: Now) -> Float[Tensor, "n k"]:
        """Class probabilities of images, float64 on the CPU."""
        encoder, num_classes = now.encoder(self.features), now.setting.spec.num_classes
        fitted = now.artefact(
            "probe",
            now.setting.trusted,
            lambda real, job: fit_softmax(encoder.encode(real.images).features, real.labels, num_classes, self.ridge),
            self,
            num_classes,
        )
        return softmax(now.encode(images, self.features).features, fitted)


def own_confidence(probabilities: Float[Tensor, "n k"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Probability of each image's own class; where there is one class only, an image without a label is of it."""
    assert probabilities.shape[1] == 1 or not bool((labels == UNLABELLED).any()), "refused before training"
    return probabilities.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)


def fit_softmax(
    features: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], num_classes: int, ridge: float
) -> dict[str, Tensor]:
    """The minimum of mean cross-entropy + ``ridge`` * squared weights, in standardised features, float64."""
    features = features.double()
    mean, scale = features.mean(0), features.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)  # a constant feature says nothing
    x = (features - mean) / scale
    weight = torch.zeros(x.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, labels) + ridge * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # pyright: ignore[reportArgumentType]
    return {"mean": mean, "scale": scale, "weight": weight.detach(), "bias": bias.detach()}


def softmax(features: Float[Tensor, "n d"], fitted: Mapping[str, Tensor]) -> Float[Tensor, "n k"]:
    """Class probabilities by what ``fit_softmax`` found."""
    x = (features.double() - fitted["mean"]) / fitted["scale"]
    return (x @ fitted["weight"] + fitted["bias"]).softmax(1)
