import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from collapse_bench.errors import MetricError
from collapse_bench.metrics.functional.spectrum import band_energies, energy_ratios, mean_image, power_spectrum
from collapse_bench.metrics.image_set import ImageSet
from collapse_bench.metrics.spectrum import SpectralEnergy
from collapse_bench.types import to_float


def scored(generated, reference):
    """Low, mid and high."""
    metric = SpectralEnergy()
    metric.update(ImageSet(images=reference), side="reference")
    metric.update(ImageSet(images=generated), side="generated")
    return [estimate.value for estimate in metric.compute().values()]


def noise(rng, *shape):
    return torch.randn(*shape, generator=rng)


@pytest.mark.parametrize("channels", [1, 3])
def test_power_sums_to_the_mean_squared_deviation(rng, channels):
    images = torch.randint(256, (300, channels, 6, 9), generator=rng, dtype=torch.uint8)
    origin = mean_image(images)
    expected = (to_float(images).double() - origin).square().sum((1, 2, 3)).mean().item()
    assert power_spectrum(images, origin).sum().item() == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(origin, to_float(images).double().mean(0), atol=1e-12)


def test_power_spectrum_equals_that_of_numpy(rng):
    images = noise(rng, 20, 2, 5, 8)
    expected = (np.abs(np.fft.fft2(images.double().numpy())) ** 2).sum(1).mean(0) / 40
    np.testing.assert_allclose(power_spectrum(images, torch.zeros(2, 5, 8).double()), expected, atol=1e-10)


@pytest.mark.parametrize(("waves", "band"), [(0, 0), (1, 0), (2, 1), (3, 1), (5, 2), (6, 2)])
def test_a_wave_has_its_energy_in_its_band(waves, band):
    # Of 14 pixels the highest frequency is 7 waves: the thirds end at 2 1/3 and 4 2/3 along an axis ...
    along = torch.cos(2 * math.pi * waves * torch.arange(14) / 14).expand(1, 1, 14, 14)
    if waves == 2:
        along = along * along.transpose(2, 3)  # ... and a diagonal wave of 2 and 2 has 2.8.
    energies = band_energies(power_spectrum(along, torch.zeros(1, 14, 14).double()))
    assert energies[band].item() == pytest.approx(energies.sum().item(), rel=1e-10)
    transposed = band_energies(power_spectrum(along.transpose(2, 3), torch.zeros(1, 14, 14).double()))
    np.testing.assert_allclose(transposed, energies, atol=1e-10)


def test_the_corners_count_to_the_last_band():
    checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    energies = band_energies(power_spectrum(checks.expand(1, 1, 8, 8), torch.zeros(1, 8, 8).double()))
    np.testing.assert_allclose(energies, [0, 0, 64], atol=1e-10)


def test_shrinking_to_the_mean_image_lowers_all_bands_alike(rng):
    real = noise(rng, 200, 1, 8, 8) + torch.linspace(0, 5, 8)
    shrunk = real.mean(0) + 0.9 * (real - real.mean(0))
    assert scored(shrunk, real) == pytest.approx([0.81] * 3, rel=1e-5)


def test_blur_lowers_the_high_band_by_its_transfer_function_and_noise_raises_it(rng):
    # Waves of 1 and 6 of 14: a mean over (1, 2, 1) / 4 passes (1 + cos w) / 2 of each.
    pixel = 2 * math.pi * torch.arange(14) / 14
    phases = 2 * math.pi * torch.rand(2, 400, 1, 1, 1, generator=rng)
    real = torch.cos(pixel + phases[0]) + torch.cos(6 * pixel + phases[1]).expand(400, 1, 14, 14)
    kernel = torch.tensor([1.0, 2.0, 1.0]).view(1, 1, 1, 3) / 4
    blurred = F.conv2d(F.pad(real, (1, 1, 0, 0), mode="circular"), kernel)
    # The real mean image is subtracted from both sides and is not quite 0: it is of order 1 / 400.
    low, _, high = scored(blurred, real)
    assert low == pytest.approx(((1 + math.cos(2 * math.pi / 14)) / 2) ** 2, rel=0.02)
    assert high == pytest.approx(((1 + math.cos(12 * math.pi / 14)) / 2) ** 2, abs=0.02)
    low, _, high = scored(real + 0.2 * noise(rng, 400, 1, 14, 14), real)
    assert low < high
    assert high > 1.02


def test_white_noise_of_another_variance_has_its_ratio_in_all_bands(rng):
    ratios = scored(2 * noise(rng, 500, 1, 12, 12), noise(rng, 500, 1, 12, 12))
    # A band of b frequencies has a relative standard error near sqrt(2 * 2 / (500 b)); the smallest has 13.
    assert ratios == pytest.approx([4] * 3, rel=4 * math.sqrt(4 / (500 * 13)))


def test_one_real_image_repeated_keeps_its_sharpness(rng):
    real = noise(rng, 300, 1, 16, 16)
    # One image has a relative error of sqrt(2 / b) in a band of b frequencies; 21 in the lowest.
    assert scored(real[:1].repeat(50, 1, 1, 1), real) == pytest.approx([1] * 3, abs=4 * math.sqrt(2 / 21))


def test_a_band_without_frequencies_or_energy_is_not_defined(rng):
    low, mid, high = scored(noise(rng, 10, 1, 1, 1), noise(rng, 10, 1, 1, 1))
    assert low > 0
    assert math.isnan(mid)
    assert math.isnan(high)
    assert math.isnan(energy_ratios(torch.ones(1), torch.zeros(1))[0])


def test_numbers_do_not_depend_on_the_order_and_are_the_same_twice(rng):
    generated, real = torch.randint(256, (2, 40, 1, 8, 8), generator=rng, dtype=torch.uint8)
    first = scored(generated, real)
    assert scored(generated, real) == first
    assert scored(generated.flip(0), real.flip(0)) == first


def test_a_pixel_that_is_not_finite_is_refused():
    images = torch.zeros(3, 1, 4, 4)
    images[2, 0, 1, 1] = math.inf
    with pytest.raises(MetricError, match="first: image 2"):
        SpectralEnergy().update(ImageSet(images=images), side="generated")
