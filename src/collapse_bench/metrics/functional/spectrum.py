"""Energy of images by spatial frequency."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from collapse_bench.types import to_float

_BLOCK = 256


def power_spectrum(images: Tensor, origin: Float[Tensor, "c h w"]) -> Float[Tensor, "h w"]:
    """Mean squared Fourier coefficients of the images' deviations from one image, summed over channels.

    The transform is orthonormal, so the sum over all frequencies is the mean squared deviation (Parseval).

    Args:
        images: uint8 or float32, [n, c, h, w], at least one.
        origin: what is subtracted from each, in the grey levels of ``to_float``, float64.

    Returns:
        Power in the order of ``torch.fft.fft2``.
    """
    power = origin.new_zeros(images.shape[2:])
    for block in images.split(_BLOCK):
        coefficients = torch.fft.fft2(to_float(block).double() - origin, norm="ortho")
        power += coefficients.abs().square().sum((0, 1))
    return power / len(images)


def mean_image(images: Tensor) -> Float[Tensor, "c h w"]:
    """The mean of the images in the grey levels of ``to_float``, float64.

    Args:
        images: uint8 or float32, [n, c, h, w], at least one.
    """
    return torch.stack([to_float(block).double().sum(0) for block in images.split(_BLOCK)]).sum(0) / len(images)


def band_energies(power: Float[Tensor, "h w"], num_bands: int = 3) -> Float[Tensor, " b"]:
    """Power summed over rings of equal width between frequency 0 and the highest along an axis.

    Args:
        power: of every frequency, in the order of ``torch.fft.fft2``.
        num_bands: rings; frequencies beyond the last, in the corners, are counted to it.
    """
    height, width = power.shape
    # In units of the highest frequency along an axis (Nyquist's), so in [-1, 1).
    rows = 2 * torch.fft.fftfreq(height, device=power.device, dtype=power.dtype)
    columns = 2 * torch.fft.fftfreq(width, device=power.device, dtype=power.dtype)
    band = (torch.hypot(rows[:, None], columns) * num_bands).long().clamp(max=num_bands - 1)
    return power.new_zeros(num_bands).index_add_(0, band.flatten(), power.flatten())


def energy_ratios(generated: Float[Tensor, " b"], reference: Float[Tensor, " b"]) -> list[float]:
    """Energies per band over those of real images, in [0, inf); 1 is ideal, NaN where real images have none.

    Args:
        generated: energies of generated images.
        reference: energies of held-out real images.
    """
    # What is left by rounding is none.
    least = 1e-12 * reference.sum().item()
    pairs = zip(generated.tolist(), reference.tolist(), strict=True)
    return [above / below if below > least else math.nan for above, below in pairs]
