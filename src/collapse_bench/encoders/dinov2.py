"""DINOv2, a vision transformer trained without labels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from collapse_bench.encoders.base import Encoded, FittedEncoder
from collapse_bench.encoders.pretrained import Pretrained, to_rgb

IMAGE_SIZE = 224
"""Pixels per side that the network sees."""

_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, grey levels in [0, 1]


@final
@dataclass(frozen=True)
class DINOv2(Pretrained):
    """384 features of DINOv2 ViT-S/14 without registers: the class token after the last layer norm.

    Oquab et al. 2023 (arXiv:2304.07193); proposed for generative models by Stein et al. 2023 (arXiv:2306.04675),
    whose code dgm-eval is followed in what happens to a picture: 8-bit RGB, both sides resized to 224 by Pillow's
    bicubic rule (antialiased, rounded to grey levels, no crop), then normalised with ImageNet's mean and standard
    deviation. Their tables are of the larger ViT-L/14, so numbers do not compare with theirs.

    The network is timm's, the weights are the official ones, whose names it shares; position embeddings are
    brought from 37x37 to 16x16 patches as the official code does, not as timm does.

    Args:
        weights: file of the published weights; ``None`` is torch hub's folder of checkpoints, into which they are
            downloaded where they are missing.
        sha256: checksum of that file, 64 hexadecimal digits; no other file is loaded.
    """

    option: ClassVar[str] = "dinov2"
    package: ClassVar[str] = "timm"
    module: ClassVar[str] = "timm"
    url: ClassVar[str] = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"

    def _load(self, tensors: Mapping[str, Tensor]) -> FittedEncoder:
        import timm
        from timm.models import VisionTransformer

        network = timm.create_model("vit_small_patch14_dinov2", pretrained=False)
        assert isinstance(network, VisionTransformer)
        # timm's own conversion is not used: it would resample weights of another shape without a word.
        network.load_state_dict({name: tensor for name, tensor in tensors.items() if name != "mask_token"})
        network.set_input_size(img_size=(IMAGE_SIZE, IMAGE_SIZE))
        positions = resize_positions(tensors["pos_embed"].float(), network.patch_embed.grid_size[0])
        network.pos_embed = nn.Parameter(positions)
        return _FrozenDINOv2(network)


class _FrozenDINOv2(FittedEncoder):
    batch_size = 50
    mean: Tensor
    sd: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1))
        self.register_buffer("sd", torch.tensor(_SD).view(3, 1, 1))

    def forward(self, images: Tensor) -> Encoded:
        return Encoded(self.network((resize(to_rgb(images), IMAGE_SIZE) / 255 - self.mean) / self.sd))


def resize(images: UInt8[Tensor, "n c h w"], size: int) -> Float[Tensor, "n c size size"]:
    """Pictures with both sides resized by Pillow's bicubic rule: antialiased, with results in grey levels 0..255.

    Pillow resizes rows, then columns, and rounds and clips each time. That is seen in pictures of strong contrast,
    such as digits: in noise, clipping only once changes some pixels by 6 levels.
    """
    levels = images.float()
    for shape in ((images.shape[2], size), (size, size)):
        levels = F.interpolate(levels, shape, mode="bicubic", antialias=True).round_().clamp_(0, 255)
    return levels


def resize_positions(positions: Float[Tensor, "1 m d"], size: int) -> Float[Tensor, "1 k d"]:
    """Position embeddings on another grid of patches, as DINOv2's ``interpolate_pos_encoding`` computes them.

    Bicubic without antialiasing, with a step of (old size) / (size + 0.1) between patches; the 0.1 was put there
    against rounding errors and has stayed, because features depend on it.

    Args:
        positions: of the class token and then of a square grid of patches, row by row.
        size: patches per side of the new grid.
    """
    of_class, of_patches = positions[:, :1], positions[:, 1:]
    side = math.isqrt(of_patches.shape[1])
    grid = of_patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, scale_factor=(size + 0.1) / side, mode="bicubic", recompute_scale_factor=False)
    return torch.cat((of_class, resized.flatten(2).transpose(1, 2)), dim=1)
