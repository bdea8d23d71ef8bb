"""DINOv2 ViT-S/14, with self-made weights of the true architecture and names."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor
from torch.testing import assert_close
from torchvision.transforms.functional import normalize
from weight_files import fitted, pictures, saved

from collapse_bench.encoders.base import FittedEncoder
from collapse_bench.encoders.dinov2 import DINOv2, resize, resize_positions
from collapse_bench.errors import DataError
from collapse_bench.fingerprint import fingerprint
from collapse_bench.seeding import isolated_rng
from collapse_bench.types import to_float

NAME = "vit_small_patch14_dinov2.lvd142m"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    with isolated_rng(1):
        tensors = timm.create_model(NAME, pretrained=False).state_dict()
        for name, tensor in tensors.items():
            # At timm's initial values features would hardly depend on pictures or positions.
            if name.endswith("gamma"):
                tensor.normal_()
            if name == "pos_embed":
                tensor.normal_(std=0.3)
    # The official file also has this, which only training needs.
    tensors["mask_token"] = torch.zeros(1, 384)
    return saved(tensors, tmp_path_factory.mktemp("weights") / "dinov2.pth")


@pytest.fixture(scope="module")
def encoder(arguments: dict[str, str]) -> FittedEncoder:
    return fitted(DINOv2(**arguments))


@pytest.fixture(scope="module")
def features(encoder: FittedEncoder) -> Tensor:
    return encoder.encode(pictures()).features


def test_features_are_384_finite_numbers_that_tell_pictures_apart(encoder: FittedEncoder, features: Tensor) -> None:
    assert features.shape == (3, 384)
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    assert torch.pdist(features).min() > 0.1 * features.norm(dim=1).mean()
    assert encoder.encode(pictures()[:1]).probabilities is None


@torch.no_grad()
def test_features_are_those_of_timm_on_these_positions(arguments: dict[str, str], features: Tensor) -> None:
    tensors = torch.load(arguments["weights"], weights_only=True)
    tensors["pos_embed"] = resize_positions(tensors["pos_embed"], 16)
    direct = timm.create_model(NAME, pretrained=False, img_size=224).eval()
    assert isinstance(direct, VisionTransformer)
    direct.load_state_dict(checkpoint_filter_fn(tensors, direct))  # timm's own conversion of the official file
    normal = normalize(resize(pictures(), 224) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert_close(direct(normal), features)


def bicubic(distance: np.ndarray) -> np.ndarray:
    """The kernel of Keys 1981 with a = -0.75, in the form of his equation (4)."""
    s = np.abs(distance)
    near = 1.25 * s**3 - 2.25 * s**2 + 1
    far = -0.75 * s**3 + 3.75 * s**2 - 6 * s + 3
    return np.where(s < 1, near, np.where(s < 2, far, 0))


def test_positions_are_resized_by_the_rule_of_the_official_code() -> None:
    positions = torch.randn(1, 1 + 37 * 37, 6, generator=torch.Generator().manual_seed(0))
    centres = (np.arange(16) + 0.5) * 37 / 16.1 - 0.5
    weights = np.zeros((16, 37))
    for patch, centre in enumerate(centres):
        for tap in np.floor(centre) + np.arange(-1, 3):
            weights[patch, int(np.clip(tap, 0, 36))] += bicubic(centre - tap)
    grid = positions[0, 1:].reshape(37, 37, 6).double().numpy()
    expected = np.einsum("ai,bj,ijd->abd", weights, weights, grid).reshape(256, 6)
    resized = resize_positions(positions, 16)
    assert_close(resized[0, 1:].double(), torch.from_numpy(expected), rtol=0, atol=1e-4)
    assert torch.equal(resized[:, 0], positions[:, 0])


@pytest.mark.parametrize("shape", [(32, 32), (28, 28), (224, 224), (300, 500)], ids=str)
def test_pictures_are_resized_as_pillow_does(shape: tuple[int, int]) -> None:
    image = torch.randint(256, (3, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
    difference = resize(image[None], 224)[0] - torch.from_numpy(np.array(pillow)).permute(2, 0, 1)
    assert difference.abs().max() <= 1
    assert difference.abs().mean() < 0.001


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
    again = fitted(DINOv2(**arguments))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert fingerprint(again) == fingerprint(encoder)
    next(again.parameters()).flatten()[0] += 1e-3
    assert fingerprint(again) != fingerprint(encoder)


@pytest.mark.slow
def test_a_file_for_larger_patches_is_refused_and_not_resampled(arguments: dict[str, str], tmp_path: Path) -> None:
    tensors = torch.load(arguments["weights"], weights_only=True)
    tensors["patch_embed.proj.weight"] = torch.zeros(384, 3, 16, 16)
    with pytest.raises(DataError, match=r"patch16\.pth .*another network: size mismatch for patch_embed.proj.weight"):
        fitted(DINOv2(**saved(tensors, tmp_path / "patch16.pth")))
