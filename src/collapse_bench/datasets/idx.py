"""The IDX format, in which MNIST and its relatives are published."""

import gzip
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor


def read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """The array of bytes in a gzipped IDX file, decoded in memory.

    Y. LeCun's format: two zero bytes, the type (8 for unsigned bytes), the number of dimensions, then each dimension
    as a big-endian 32-bit number, then the values in row-major order.

    Args:
        path: a file whose checksum has been verified.
    """
    content = bytearray(gzip.decompress(path.read_bytes()))
    num_dims = content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(num_dims)]
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * num_dims).reshape(shape)
