"""Equal weight for every class."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from collapse_bench.errors import TrainingError
from collapse_bench.mitigations.base import Weigher
from collapse_bench.mitigations.classes import check_classes
from collapse_bench.now import Now, Setting
from collapse_bench.pool import UNLABELLED, VisiblePool


@final
@dataclass(frozen=True)
class ClassBalanced(Weigher):
    """Every class has the same total weight, however many images it has.

    The balanced batches of Wyllie, Shumailov and Papernot 2024 (STAR, arXiv:2403.07857), with the class as the group.
    It looks at labels only. Those of samples are the conditions that they were made for, so the generator must be
    conditional, or ``labels=classifier`` give them others. Where all classes have equally many images it equals the
    control bit for bit.
    """

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if samples would have no labels."""
        check_classes("mitigation=class_balanced", setting)

    def weigh(self, train: VisiblePool, now: Now) -> Float[Tensor, " n"]:
        """The reciprocal of the number of images of each image's class.

        Raises:
            TrainingError: if an image has no label.
        """
        if bool((train.labels == UNLABELLED).any()):
            raise TrainingError(
                f"generation {now.generation}: mitigation=class_balanced needs labels, and some images of the training "
                "pool have none"
            )
        return 1.0 / train.labels.bincount().double()[train.labels]
