import pytest
import torch

from collapse_bench.errors import ConfigError
from collapse_bench.types import Budget, ImageSpec, to_float, to_uint8


def test_grey_levels_survive_the_way_to_floats_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    floats = to_float(levels)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (-1.0, 1.0)
    assert torch.equal(to_uint8(floats), levels)


def test_floats_become_the_nearest_grey_level() -> None:
    grid = torch.linspace(-1, 1, 100_000, dtype=torch.float64)
    error = to_uint8(grid.float()).double() - (grid + 1) * 127.5
    # Half a grey level, and the rounding of float32 at 255.
    assert error.abs().max() <= 0.5 + 255 * 2**-23


def test_floats_outside_the_grey_levels_are_clipped() -> None:
    images = torch.tensor([-float("inf"), -7.0, -1.001, 1.001, 7.0, float("inf")])
    assert to_uint8(images).tolist() == [0, 0, 0, 255, 255, 255]


def test_conversions_leave_their_argument_as_it_was() -> None:
    levels, floats = torch.tensor([0, 200], dtype=torch.uint8), torch.tensor([-2.0, 0.3])
    to_float(levels), to_float(floats), to_uint8(floats)
    assert torch.equal(levels, torch.tensor([0, 200], dtype=torch.uint8))
    assert torch.equal(floats, torch.tensor([-2.0, 0.3]))


def test_float_images_pass_unchanged() -> None:
    images = torch.tensor([[[[-5.0, 1e6]]]])
    assert torch.equal(to_float(images), images)


def test_an_image_spec_counts_values_and_classes() -> None:
    spec = ImageSpec(3, 4, 5, ("cat", "dog"))
    assert (spec.shape, spec.num_values, spec.num_classes, spec.dtype) == ((3, 4, 5), 60, 2, "uint8")


def test_only_generation_0_spends_the_initial_steps() -> None:
    budget = Budget(num_generations=3, num_steps_initial=100, num_steps=10)
    assert [budget.num_fit_steps(t) for t in range(4)] == [100, 10, 10, 10]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_generations", -1),
        ("num_steps_initial", 0),
        ("num_steps", 0),
        ("num_synthetic", 1),
        ("num_measured", 0),
        ("max_candidates", 0.9),
    ],
)
def test_an_impossible_budget_is_refused_by_name(name: str, value: float) -> None:
    valid = {"num_generations": 0, "num_steps_initial": 1, "num_steps": 1, "max_candidates": 1.0}
    assert Budget(**valid).num_synthetic is None
    with pytest.raises(ConfigError, match=rf"budget\.{name} .* got {value}"):
        Budget(**{**valid, name: value})
