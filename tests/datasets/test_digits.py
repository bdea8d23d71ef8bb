import numpy as np
import torch
from sklearn.datasets import load_digits

from collapse_bench.datasets.digits import Digits

INK, LABELS = (np.asarray(column) for column in load_digits(return_X_y=True))


def test_digits_split_into_897_450_and_450() -> None:
    data = Digits(name="digits", num_reference=450, num_control=450).load()
    assert [len(data.pool), len(data.held_out.reference), len(data.held_out.control)] == [897, 450, 450]
    assert data.spec.shape == (1, 8, 8)
    assert data.spec.class_names == tuple("0123456789")
    assert data.spec.dtype == "uint8"


def test_ink_0_to_16_becomes_grey_0_to_255() -> None:
    data = Digits(name="digits").load()
    ink = torch.from_numpy(INK)[data.pool.image_id].reshape(-1, 1, 8, 8)
    assert data.pool.images.dtype == torch.uint8
    assert torch.equal(data.pool.images, (ink * 255 / 16).round().byte())
    assert data.pool.images.max() == 255
    assert data.pool.images.unique().numel() == 17


def test_labels_are_the_published_ones() -> None:
    data = Digits(name="digits").load()
    assert data.pool.labels.tolist() == LABELS[data.pool.image_id].tolist()


def test_classes_may_be_given_as_numbers() -> None:
    data = Digits(name="digits", classes=[7, 3]).load()
    assert data.spec.class_names == ("7", "3")
    assert sorted(data.pool.labels.unique().tolist()) == [0, 1]
