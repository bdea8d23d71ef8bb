"""Energy of the pixels by spatial frequency."""

from typing import ClassVar, final

from collapse_bench.metrics.base import Estimate, GenerativeMetric
from collapse_bench.metrics.functional.spectrum import band_energies, energy_ratios, mean_image, power_spectrum
from collapse_bench.metrics.image_set import ImageSet


@final
class SpectralEnergy(GenerativeMetric):
    """``spectral_energy_low``, ``spectral_energy_mid``, ``spectral_energy_high``, generated over real; 1 is ideal.

    Thirds of the spatial frequencies up to the highest along an axis. Blur lowers the high band, pixel noise raises it,
    shrinking to the mean image lowers all. Energy is that of the deviations from the mean *real* image: what all images
    share (background, borders, a blurred prototype) else makes up most of the low band, and hides a change in it. The
    reference's mean is taken from both sides, so one image repeated does not lose its energy: this sees sharpness, not
    diversity. Compare Durall et al., arXiv:2003.01826, and Dzanic et al., arXiv:1911.06465, who keep the mean.
    """

    columns: ClassVar[tuple[str, ...]] = ("images",)

    def score(self, generated: ImageSet, reference: ImageSet) -> dict[str, Estimate]:
        """The three ratios; NaN where a band has no frequency, as in very small images."""
        origin = self.once("mean", lambda: mean_image(reference.images))
        real = self.once("energies", lambda: band_energies(power_spectrum(reference.images, origin)))
        ratios = energy_ratios(band_energies(power_spectrum(generated.images, origin)), real)
        return {
            f"spectral_energy_{band}": Estimate(ratio, better="one")
            for band, ratio in zip(("low", "mid", "high"), ratios, strict=True)
        }
