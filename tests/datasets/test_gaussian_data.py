import pytest
import torch

from collapse_bench.datasets.gaussian import Gaussian
from collapse_bench.errors import ConfigError


def test_vectors_are_float32_rows_of_one_class() -> None:
    data = Gaussian(name="gaussian", num_images=400, num_values=3, num_reference=100, num_control=50).load()
    assert [len(data.pool), len(data.held_out.reference), len(data.held_out.control)] == [250, 100, 50]
    assert data.pool.images.shape == (250, 1, 1, 3)
    assert data.pool.images.dtype == torch.float32
    assert data.spec.dtype == "float32"
    assert data.spec.num_classes == 1


def test_vectors_are_standard_normal() -> None:
    data = Gaussian(name="gaussian", num_images=40_000, num_values=4).load()
    x = data.pool.images.flatten(1).double()
    n = len(x)
    assert (x.mean(0).abs() < 5 * n**-0.5).all()
    # A sample variance has variance 2 / (n - 1), a sample correlation of independent numbers 1 / n.
    assert ((x.var(0) - 1).abs() < 5 * (2 / (n - 1)) ** 0.5).all()
    assert ((torch.corrcoef(x.T) - torch.eye(4)).abs() < 5 * n**-0.5).all()


def test_another_split_seed_is_another_data_set() -> None:
    first, again, other = (
        Gaussian(name="gaussian", num_images=20, num_values=2, split_seed=seed).read().images for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 8}, ["dataset.image_size=8", "gaussian", "null"]),
        ({"num_values": 0}, ["dataset.num_values", "at least 1"]),
        ({"num_images": 0}, ["dataset.num_images", "at least 1"]),
    ],
)
def test_impossible_options_are_refused(options: dict[str, int], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Gaussian(**{"name": "gaussian", "num_images": 20, "num_values": 2, **options}).load()
    for word in words:
        assert word in str(caught.value)
