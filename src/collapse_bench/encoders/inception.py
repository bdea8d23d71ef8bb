"""The Inception-v3 of the Fréchet inception distance."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from collapse_bench.encoders.base import Encoded, FittedEncoder
from collapse_bench.encoders.pretrained import Pretrained, to_rgb


@final
@dataclass(frozen=True)
class Inception(Pretrained):
    """2,048 features of TensorFlow's Inception-v3 of 2015-12-05, the network of published FIDs.

    Heusel et al. 2017 (arXiv:1706.08500); the port of the network is torch-fidelity's, which torchmetrics uses too.
    Pictures become 8-bit RGB, are resized to 299x299 by the bilinear rule of TensorFlow 1, without antialiasing,
    and enter the network as (x - 128) / 128; the features are its last average pool. Published FIDs compare 50,000
    images or so: at smaller counts the bias of FID in 2,048 dimensions is large.

    There are no class probabilities: its 1,008 outputs are classes of ImageNet and not of the data.

    Args:
        weights: file of the published weights; ``None`` is torch hub's folder of checkpoints, into which they are
            downloaded where they are missing.
        sha256: checksum of that file, 64 hexadecimal digits; no other file is loaded.
    """

    option: ClassVar[str] = "inception"
    package: ClassVar[str] = "torch-fidelity"
    module: ClassVar[str] = "torch_fidelity"
    url: ClassVar[str] = (
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
    )

    def _load(self, tensors: Mapping[str, Tensor]) -> FittedEncoder:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # It can only be made from a file, which it unpickles without restrictions: it gets one of our own making.
        file = BytesIO()
        torch.save(tensors, file)
        file.seek(0)
        return _FrozenInception(FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=file))


class _FrozenInception(FittedEncoder):
    batch_size = 50  # activations take some 20 MB per image

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Encoded:
        (features,) = self.network(to_rgb(images))
        return Encoded(features)
