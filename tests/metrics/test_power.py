"""What each number sees: its declared row against ways to go wrong, on a mixture of Gaussians."""

import pytest
import torch

from collapse_bench.metrics.classes import ClassShares, Confidence
from collapse_bench.metrics.frechet import FrechetDistance
from collapse_bench.metrics.kernel import KernelDistance
from collapse_bench.metrics.manifold import Manifold
from collapse_bench.metrics.tail import TailMass
from collapse_bench.metrics.variance import WithinClassVariance

NUM_IMAGES = 600
NUM_FRESH = 20


def shrunk(mixture, rng):
    return mixture.draw(mixture.classes(NUM_IMAGES, rng), rng, sd=0.7)


def repeated(mixture, rng):
    return mixture.draw(torch.zeros(1).long(), rng).repeat(NUM_IMAGES, 1)


def one_class_missing(mixture, rng):
    return mixture.draw(mixture.classes(NUM_IMAGES, rng).clamp(min=1), rng)


def noise(mixture, rng):
    return mixture.draw(mixture.classes(NUM_IMAGES, rng), rng, sd=2.0)


def copies(mixture, rng):
    """Every sample twice."""
    return mixture.draw(mixture.classes(NUM_IMAGES // 2, rng), rng).repeat(2, 1)


def fresh(mixture, rng):
    return mixture.draw(mixture.classes(NUM_IMAGES, rng), rng)


DAMAGES = [fresh, shrunk, repeated, one_class_missing, noise, copies]
# "+" rises, "-" falls, "0" does not see it, "?" is not promised (it depends on the draw).
# Worth a look: in early collapse ("shrunk") precision and density go up, and kid and coverage see nothing;
# recall goes up with noise, so it is never read without precision.
ROWS = {
    #                               fresh shrunk repeated missing noise copies
    "fid":                         "0     ?      +        +       +     ?",
    "kid":                         "0     0      +        +       +     ?",
    "precision":                   "0     +      ?        0       -     ?",
    "recall":                      "0     -      -        -       +     0",
    "density":                     "0     +      ?        0       -     0",
    "coverage":                    "0     0      -        -       -     -",
    "tail_mass":                   "0     -      ?        0       +     0",
    "within_class_variance_ratio": "0     -      -        0       +     0",
    "class_kl":                    "0     0      +        +       0     ?",
    "lowest_class_share":          "0     0      -        -       0     ?",
    "num_classes_covered":         "0     0      -        -       0     0",
    "confidence":                  "0     0      ?        0       -     0",
}  # fmt: skip


@pytest.fixture(scope="module")
def deviations(mixture):
    """Every number after every damage, in standard deviations between fresh draws."""
    rng = torch.Generator().manual_seed(7)
    metrics = [
        FrechetDistance(), KernelDistance(), Manifold(), TailMass(), WithinClassVariance(), ClassShares(), Confidence()
    ]  # fmt: skip
    reference = mixture.fresh(NUM_IMAGES, rng)
    for metric in metrics:
        if "reference" in metric.sides:
            metric.update(reference, side="reference")

    def values(features):
        scores = {}
        for metric in metrics:
            metric.reset()
            metric.update(mixture.encode(features), side="generated")
            scores |= metric.compute()
        return torch.tensor([scores[name].value for name in ROWS], dtype=torch.float64)

    floor = torch.stack([values(fresh(mixture, rng)) for _ in range(NUM_FRESH)])
    # The number of classes covered does not vary at all between fresh draws.
    spread = floor.std(0).clamp(min=1e-9)
    return {damage: (values(damage(mixture, rng)) - floor.mean(0)) / spread for damage in DAMAGES}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ROWS)
def test_a_number_sees_what_its_row_declares(deviations, name, damage):
    declared = ROWS[name].split()[DAMAGES.index(damage)]
    seen = deviations[damage][list(ROWS).index(name)].item()
    # Four deviations: one in a thousand by chance, with a spread from twenty draws.
    observed = "0" if abs(seen) < 4 else "+" if seen > 0 else "-"
    assert observed == declared or declared == "?", f"{name} moves by {seen:.1f} standard deviations"
