"""Data that the tests of the metrics share."""

import pytest
import torch

from collapse_bench.testing.image_sets import FIVE_CLASSES, Mixture


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(20)


@pytest.fixture(scope="session")
def mixture() -> Mixture:
    """Five classes in eight dimensions, far enough apart for a classifier that is nearly always right."""
    return FIVE_CLASSES
