"""The Inception-v3 of published FIDs, with self-made weights of the true architecture."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import NoTrainInceptionV3
from weight_files import fitted, pictures, saved

from collapse_bench.encoders.base import FittedEncoder
from collapse_bench.encoders.inception import Inception
from collapse_bench.errors import DataError
from collapse_bench.fingerprint import fingerprint
from collapse_bench.seeding import isolated_rng
from collapse_bench.types import to_float


class Untrained(FeatureExtractorInceptionV3):
    """The network without the file that it can otherwise only be made from."""

    def __init__(self) -> None:
        empty = BytesIO()
        torch.save({}, empty)
        empty.seek(0)
        super().__init__("inception", ["2048"], feature_extractor_weights_path=empty)

    def load_state_dict(self, *args: object, **kwargs: object) -> Any:
        """Keeps the parameters that were drawn."""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    with isolated_rng(1):
        network = Untrained()
        for parameter in network.parameters():
            if parameter.ndim == 4:  # activations neither vanish nor explode over the 94 layers
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    return saved(network.state_dict(), tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def encoder(arguments: dict[str, str]) -> FittedEncoder:
    return fitted(Inception(**arguments))


@pytest.fixture(scope="module")
def features(encoder: FittedEncoder) -> Tensor:
    return encoder.encode(pictures()).features


def test_features_are_2048_finite_numbers_that_tell_pictures_apart(encoder: FittedEncoder, features: Tensor) -> None:
    assert features.shape == (3, 2048)
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    assert torch.pdist(features).min() > 0.1 * features.norm(dim=1).mean()
    assert encoder.encode(pictures()[:1]).probabilities is None


def test_features_are_those_of_torch_fidelity(arguments: dict[str, str], features: Tensor) -> None:
    direct = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=arguments["weights"])
    assert_close(direct(pictures())[0], features)


def test_features_are_those_of_torchmetrics_without_antialiasing(arguments: dict[str, str], features: Tensor) -> None:
    direct = NoTrainInceptionV3("x", ["2048"], arguments["weights"], antialias=False)
    assert_close(direct(pictures()), features)
    direct.use_antialias = True
    assert not torch.allclose(direct(pictures()[2:]), features[2:], rtol=1e-2)


def test_features_do_not_depend_on_the_batch_size(
    encoder: FittedEncoder, features: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encoder.batch_size == 50
    monkeypatch.setattr(encoder, "batch_size", 2)
    assert_close(encoder.encode(pictures()).features, features, rtol=1e-4, atol=1e-4)


def test_grey_pictures_are_rgb_pictures_with_equal_channels(encoder: FittedEncoder) -> None:
    grey = pictures()[2:, :1]
    assert_close(encoder.encode(grey).features, encoder.encode(grey.repeat(1, 3, 1, 1)).features)


def test_float_pictures_become_grey_levels(encoder: FittedEncoder, features: Tensor) -> None:
    almost = to_float(pictures()[2:]) + 1e-3
    assert_close(encoder.encode(almost).features, features[2:], rtol=1e-4, atol=1e-4)


def test_the_encoder_is_frozen_and_its_weights_are_its_identity(
    arguments: dict[str, str], encoder: FittedEncoder
) -> None:
    before = torch.random.get_rng_state()
    again = fitted(Inception(**arguments))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert fingerprint(again) == fingerprint(encoder)
    next(again.parameters()).flatten()[0] += 1e-3
    assert fingerprint(again) != fingerprint(encoder)


@pytest.mark.slow
def test_a_file_without_one_tensor_is_refused(arguments: dict[str, str], tmp_path: Path) -> None:
    tensors = torch.load(arguments["weights"], weights_only=True)
    del tensors["Mixed_7c.branch1x1.conv.weight"]
    with pytest.raises(DataError, match=r"partial\.pth .*another network: Missing key.*Mixed_7c.branch1x1.conv.weight"):
        fitted(Inception(**saved(tensors, tmp_path / "partial.pth")))
