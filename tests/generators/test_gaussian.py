import math
from typing import Literal

import numpy as np
import pytest
import scipy.stats
import torch

from collapse_bench.errors import ConfigError, TrainingError
from collapse_bench.generators.gaussian import Gaussian, GaussianModel
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.training import FitJob, TrainerOptions
from collapse_bench.types import ImageSpec

SPEC = ImageSpec(1, 1, 5, ("one",), "float32")
MAXIMUM_LIKELIHOOD = Gaussian()


def fitted(
    images: torch.Tensor, weights: torch.Tensor | None = None, recipe: Gaussian = MAXIMUM_LIKELIHOOD
) -> GaussianModel:
    model = recipe.empty_model(SPEC)
    pool = Pool.real(images.view(-1, *SPEC.shape), torch.full((len(images),), UNLABELLED), "made up")
    weights = torch.ones(len(images)) if weights is None else weights
    recipe.fit_model(model, pool, weights, FitJob(0, 0, TrainerOptions(num_threads=1), "a fit"))
    return model


def losses(model: GaussianModel, images: torch.Tensor) -> torch.Tensor:
    return model.loss(images.view(-1, *SPEC.shape), torch.full((len(images),), UNLABELLED))


def test_the_loss_is_that_of_scipy() -> None:
    images = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    model = fitted(images)
    covariance = (model.factor @ model.factor.T).numpy()
    expected = -scipy.stats.multivariate_normal(model.mean.numpy(), covariance).logpdf(images.numpy())
    torch.testing.assert_close(losses(model, images), torch.as_tensor(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_weighted_estimates_are_those_of_numpy(covariance: Literal["full", "diagonal"], unbiased: bool) -> None:
    images = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.arange(50).double()  # the first one is absent
    model = fitted(images, weights, Gaussian(covariance=covariance, unbiased=unbiased))
    x, w = images.double().numpy(), weights.numpy()
    expected = np.cov(x.T, aweights=w, ddof=int(unbiased))
    np.testing.assert_allclose(model.mean.numpy(), np.average(x, axis=0, weights=w), rtol=1e-12)
    if covariance == "full":
        np.testing.assert_allclose((model.factor @ model.factor.T).numpy(), expected, atol=1e-12)
    else:
        np.testing.assert_allclose(model.factor.square().numpy(), expected.diagonal(), rtol=1e-12)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(TrainingError, match="at least two images with a positive weight, a fit has fewer"):
        fitted(torch.randn(5, 5), torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0]))
    with pytest.raises(ConfigError, match=r"generator\.start=warm makes no sense"):
        Gaussian(start="warm")


def test_a_value_that_never_changes_makes_the_loss_infinite_and_not_merely_large() -> None:
    images = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    images[:, 2] = 0.3
    assert losses(fitted(images), images).tolist() == [math.inf] * 50
