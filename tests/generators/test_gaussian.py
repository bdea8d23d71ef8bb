import math

import scipy.stats
import torch

from collapse_bench.generators.gaussian import Gaussian, GaussianModel
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.training import FitJob, TrainerOptions
from collapse_bench.types import ImageSpec

SPEC = ImageSpec(1, 1, 5, ("one",), "float32")


def fitted(images: torch.Tensor) -> GaussianModel:
    recipe = Gaussian()
    model = recipe.empty_model(SPEC)
    pool = Pool.real(images.view(-1, *SPEC.shape), torch.full((len(images),), UNLABELLED), "made up")
    recipe.fit_model(model, pool, torch.ones(len(images)), FitJob(0, 0, TrainerOptions(num_threads=1), "a fit"))
    return model


def losses(model: GaussianModel, images: torch.Tensor) -> torch.Tensor:
    return model.loss(images.view(-1, *SPEC.shape), torch.full((len(images),), UNLABELLED))


def test_the_loss_is_that_of_scipy() -> None:
    images = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    model = fitted(images)
    covariance = (model.factor @ model.factor.T).numpy()
    expected = -scipy.stats.multivariate_normal(model.mean.numpy(), covariance).logpdf(images.numpy())
    torch.testing.assert_close(losses(model, images), torch.as_tensor(expected), rtol=1e-6, atol=1e-6)


def test_a_value_that_never_changes_makes_the_loss_infinite_and_not_merely_large() -> None:
    images = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    images[:, 2] = 0.3
    assert losses(fitted(images), images).tolist() == [math.inf] * 50
