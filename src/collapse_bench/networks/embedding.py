"""Embeddings of the noise level and the class."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


class ConditionEmbedding(nn.Module):
    """One vector per image from its time in [0, 1] and its class.

    The time becomes sines and cosines at geometrically spaced frequencies, then both pass a small network.

    Args:
        width: length of the vector.
        num_classes: classes, or 0 for an unconditional network. Label -1 means no class, and has a vector of its own.
    """

    frequencies: Tensor

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        half = width // 2
        frequencies = torch.exp(torch.linspace(0.0, math.log(100.0), half))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.time = nn.Sequential(nn.Linear(2 * half, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_classes + 1, width) if num_classes else None

    def forward(self, time: Float[Tensor, " n"], labels: Int64[Tensor, " n"]) -> Float[Tensor, "n width"]:
        """The vectors."""
        angle = time.unsqueeze(1) * self.frequencies
        out = self.time(torch.cat([angle.sin(), angle.cos()], dim=1))
        return out if self.label is None else out + self.label(labels + 1)
