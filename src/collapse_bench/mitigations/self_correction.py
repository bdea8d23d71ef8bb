"""Self-correction toward cluster centres of real images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.classes import check_per_class
from collapse_bench.mitigations.correction import Correction
from collapse_bench.mitigations.selection import check_real, k_means
from collapse_bench.now import Now, Setting
from collapse_bench.pool import Pool
from collapse_bench.training import FitJob


@final
@dataclass(frozen=True, kw_only=True)
class SelfCorrection(Correction):
    """Moves every sample toward the nearest k-means centre of the real images of its class, in pixels.

    The correction of Gillman et al. 2024 (arXiv:2402.07087) on MNIST, with 16 clusters per class and
    ``strength=1``. A sample of a class without real images goes to the nearest centre of all. It looks at all real
    images with their labels, once. With ``strength=0`` it equals the control bit for bit.

    Args:
        strength: see ``Correction``.
        num_clusters: centres per class.
        per_class: toward a centre of the sample's own class, which each must have; ``False`` is another method: toward
            the nearest centre of all classes.
    """

    reason: ClassVar[str] = "corrected toward a centre"

    num_clusters: int
    per_class: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_clusters < 1:
            raise ConfigError(f"mitigation.curator.num_clusters must be at least 1, got {self.num_clusters}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if there is no real image to learn from, or samples have no classes."""
        check_real(setting)
        check_per_class("self_correction", self.per_class, setting)

    def targets(self, values: Float[Tensor, "n d"], labels: Tensor, now: Now) -> Float[Tensor, "n d"]:
        """The nearest centre of each image."""
        learnt = now.artefact("centres", now.setting.trusted, self._centres, self.num_clusters)
        if not self.per_class:
            return learnt["centres"][torch.cdist(values, learnt["centres"]).argmin(1)]
        return nearest_of_class(values, labels, learnt["centres"], learnt["labels"])

    def _centres(self, real: Pool, job: FitJob) -> Mapping[str, Tensor]:
        classes = real.labels.unique()
        pixels = real.images.float().flatten(1)
        centres = [k_means(pixels[real.labels == label], self.num_clusters, job.seed) for label in classes]
        sizes = torch.tensor([len(of_class) for of_class in centres])
        return {"centres": torch.cat(centres), "labels": classes.repeat_interleave(sizes)}


def nearest_of_class(
    values: Float[Tensor, "n d"], labels: Tensor, centres: Float[Tensor, "k d"], centre_labels: Tensor
) -> Float[Tensor, "n d"]:
    """The nearest centre among those of the same class; among all of them for a class that has none."""
    foreign = (labels.unsqueeze(1) != centre_labels) & torch.isin(labels, centre_labels).unsqueeze(1)
    return centres[torch.cdist(values, centres).masked_fill(foreign, torch.inf).argmin(1)]
