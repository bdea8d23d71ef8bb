"""What a data set is: real images as uint8 tensors, split into a real pool and two held-out sets."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from collapse_bench.datasets.split import draw, long_tailed
from collapse_bench.errors import ConfigError
from collapse_bench.fingerprint import fingerprint
from collapse_bench.pool import Pool
from collapse_bench.seeding import RUN_LEVEL, Role, Stream
from collapse_bench.types import ImageSpec

_MIN_IMAGE_SIZE = 4
_MAX_HELD_OUT = 10_000
_NOT_KEPT = -1
_RESIZE_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class RawImages:
    """Images as a reader finds them.

    Args:
        images: uint8 grey levels 0..255 (float32 for data without grey levels).
        labels: index into ``class_names``.
        class_names: one name per class.
        test_images: the published test images, where there is such a split.
        test_labels: their labels.
    """

    images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    class_names: tuple[str, ...]
    test_images: UInt8[Tensor, "m c h w"] | None = None
    test_labels: Int64[Tensor, " m"] | None = None


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Real images that nothing but the measuring side sees.

    Args:
        reference: what is measured against.
        control: real images that are scored exactly as generated ones are: the real-vs-real floor.
    """

    reference: Pool
    control: Pool


@dataclass(frozen=True, eq=False)
class RealImages:
    """One data set, split.

    Args:
        name: how tables call it.
        spec: shape and classes.
        pool: the real images that may be trained on.
        not_held_out: the real images that encoders are fitted on, whatever ``num_real`` is, so that pools of all sizes
            are measured with one ruler; ``pool`` itself where all of them may be trained on.
        held_out: the real images that are measured with.
    """

    name: str
    spec: ImageSpec
    pool: Pool
    not_held_out: Pool
    held_out: HeldOut

    @property
    def content_hash(self) -> str:
        """Hash of all images and labels of the three sets, and of which set each is in."""
        return fingerprint(*(p.content_hash for p in (self.pool, self.held_out.reference, self.held_out.control)))


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """Real images and how they are split. Concrete data sets are frozen dataclasses that implement ``read``.

    The published test images, where there are any, are the reference, and the control set is drawn from the
    training images. Otherwise both are drawn from all images. Draws are stratified by class and depend on
    ``split_seed`` only, so all runs share one split.

    A published protocol that trains on all training images leaves none for the control set. With
    ``control_from="test"`` the test images are halved into the reference and the control set; the floor is then the
    mean over random halves of them.

    An imbalanced data set (``long_tail``) is imbalanced before it is split, so all three sets have the same class
    shares: the reference is what a model that loses nothing would give. Wyllie et al. 2024, arXiv:2403.07857, ask what
    becomes of the rare classes.

    Args:
        name: how tables call the data set.
        image_size: height and width in pixels after resizing (antialiased bilinear); ``None`` keeps the size.
        classes: names of the classes to keep, which are renumbered in this order; ``None`` keeps all.
        long_tail: images of the last class per image of the first one, in (0, 1]; the classes between fall
            geometrically, and as many images stay as there are for this. ``None`` leaves the classes as found.
        num_real: images in the real pool, a stratified subset; ``None`` is all that are not held out.
        num_reference: images measured against; ``None`` is all test images where there is a published test
            set (half of them with ``control_from="test"``), otherwise a quarter of the images, at most 10,000.
        num_control: images that make the floor; ``None`` is a quarter of the images, at most 10,000 and at most
            the number of reference images; with ``control_from="test"`` the other half of the test images.
        control_from: where there is a published test set, the images that the control set is drawn from: ``"train"``
            or ``"test"``.
        split_seed: seed of the split.
    """

    name: str
    image_size: int | None = None
    classes: Sequence[str | int] | None = None
    long_tail: float | None = None
    num_real: int | None = None
    num_reference: int | None = None
    num_control: int | None = None
    control_from: Literal["train", "test"] = "train"
    split_seed: int = 0

    @abstractmethod
    def read(self) -> RawImages:
        """All images, as found.

        Raises:
            DataError: if a file is missing, damaged, or cannot be downloaded.
        """

    @final
    def load(self) -> RealImages:
        """The data set, resized, restricted to the chosen classes, and split.

        No image is in two of the three sets, and the order within each is random. An image's id is its position
        among the images as found, training images first, whatever the options are.

        Raises:
            DataError: if a file is missing, damaged, or cannot be downloaded.
            ConfigError: if an option asks for a class or a number of images that is not there.
        """
        self._check_options()
        raw = self.read()
        if self.image_size is not None and raw.images.dtype != torch.uint8:
            raise ConfigError(
                f"dataset.image_size={self.image_size}: {self.name} holds no pictures to resize; set it to null"
            )

        class_names, labels, test_labels = self._keep_classes(raw)
        if raw.test_images is None:
            found = Pool.real(raw.images, labels, self.name)
        else:
            found = Pool.real(torch.cat((raw.images, raw.test_images)), torch.cat((labels, test_labels)), self.name)
        train = (labels != _NOT_KEPT).nonzero().flatten()
        test = (test_labels != _NOT_KEPT).nonzero().flatten() + len(labels)
        if self.long_tail is not None:
            train, test = (self._thin(found.labels, part, class_names) for part in (train, test))

        real, not_held_out, reference, control = (
            replace(pool, images=_resize(pool.images, self.image_size))
            for pool in self._split(found, train, None if raw.test_images is None else test)
        )
        channels, height, width = real.images.shape[1:]
        dtype = str(real.images.dtype).removeprefix("torch.")
        spec = ImageSpec(channels, height, width, class_names, dtype)
        not_held_out = real if len(real) == len(not_held_out) else not_held_out
        return RealImages(self.name, spec, real, not_held_out, HeldOut(reference, control))

    def _check_options(self) -> None:
        if self.image_size is not None and self.image_size < _MIN_IMAGE_SIZE:
            raise ConfigError(
                f"dataset.image_size must be at least {_MIN_IMAGE_SIZE} pixels (or null for the size as found), "
                f"got {self.image_size}"
            )
        if self.long_tail is not None and not 0 < self.long_tail <= 1:
            raise ConfigError(
                f"dataset.long_tail must lie in (0, 1] (or be null for the classes as found), got {self.long_tail}"
            )
        for option in ("num_real", "num_reference", "num_control"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ConfigError(f"dataset.{option} must be at least 1 (or null for the default), got {value}")
        if self.classes is not None and (isinstance(self.classes, str) or len(self.classes) == 0):
            raise ConfigError(
                f"dataset.classes must be a list with at least one class name, such as [a,b], or null for all classes, "
                f"got {self.classes!r}"
            )

    def _keep_classes(self, raw: RawImages) -> tuple[tuple[str, ...], Tensor, Tensor]:
        """Names of the kept classes, and the training and test labels as indices into them or ``_NOT_KEPT``."""
        # The command line reads classes=[3,5] as numbers.
        wanted = raw.class_names if self.classes is None else tuple(str(name) for name in self.classes)
        for name in wanted:
            if name not in raw.class_names:
                raise ConfigError(_unknown_class(name, self.name, raw.class_names))
        if len(set(wanted)) != len(wanted):
            raise ConfigError(f"dataset.classes names a class twice: {', '.join(wanted)}; name each class once")
        new_label = torch.full((len(raw.class_names),), _NOT_KEPT)
        new_label[[raw.class_names.index(name) for name in wanted]] = torch.arange(len(wanted))
        test_labels = raw.labels[:0] if raw.test_labels is None else raw.test_labels
        return wanted, new_label[raw.labels], new_label[test_labels]

    def _thin(self, labels: Tensor, part: Int64[Tensor, " k"], class_names: tuple[str, ...]) -> Int64[Tensor, " j"]:
        """The positions of ``part`` that a long-tailed data set keeps."""
        if len(part) == 0:  # there is no published test set
            return part
        assert self.long_tail is not None
        sizes = long_tailed(labels[part].bincount(minlength=len(class_names)), self.long_tail)
        if (sizes == 0).any():
            raise ConfigError(
                f"dataset.long_tail={self.long_tail} leaves no image of the class {class_names[int(sizes.argmin())]!r} "
                f"of {self.name}; raise it"
            )
        generator = Stream(self.split_seed, RUN_LEVEL, f"{Role.SPLIT}/long_tail").generator()
        of_class = [part[labels[part] == k] for k in range(len(class_names))]
        return torch.cat([draw(labels, of_class[k], int(size), generator)[0] for k, size in enumerate(sizes)])

    def _split(
        self, found: Pool, train: Int64[Tensor, " k"], test: Int64[Tensor, " m"] | None
    ) -> tuple[Pool, Pool, Pool, Pool]:
        """Real pool, all that is not held out, reference and control set, from the positions ``train`` and ``test``."""
        quarter = max(1, min(len(train) // 4, _MAX_HELD_OUT))
        generator = Stream(self.split_seed, RUN_LEVEL, Role.SPLIT).generator()

        def drawn(option: str, default: int, among: Tensor, what: str, keep: int = 0) -> tuple[Tensor, Tensor]:
            asked = getattr(self, option)
            count, available = default if asked is None else asked, len(among) - keep
            if not 1 <= count <= available:
                raise ConfigError(
                    f"dataset.{option} is {count}{' by default' if asked is None else ''}, but {self.name} has "
                    f"{max(available, 0)} {what} for it; choose a smaller dataset.{option} or hold out fewer images"
                )
            return draw(found.labels, among, count, generator)

        if self.control_from == "test":
            if test is None:
                raise ConfigError(
                    f"dataset.control_from=test, but {self.name} has no published test images; set it to train"
                )
            reference, others = drawn("num_reference", len(test) // 2, test, "published test images", keep=1)
            default = min(len(others), len(reference))
            control, _ = drawn("num_control", default, others, "published test images that are not in the reference")
            rest, what = train, "training images"
        else:
            # One image more must always remain: first for the control set, then for the real pool.
            if test is None:
                reference, rest = drawn("num_reference", quarter, train, "images", keep=2)
            else:
                reference, _ = drawn("num_reference", len(test), test, "published test images")
                rest = train
            default = min(quarter, len(reference))
            control, rest = drawn("num_control", default, rest, "images that are not in the reference", keep=1)
            what = "images that are not held out"
        state = generator.get_state()
        real, _ = drawn("num_real", len(rest), rest, what)
        # In the order that the real pool has where it is all of them.
        not_held_out, _ = draw(found.labels, rest, len(rest), generator.set_state(state))
        return found.take(real), found.take(not_held_out), found.take(reference), found.take(control)


def _resize(images: Tensor, size: int | None) -> Tensor:
    """Images of ``size`` x ``size`` pixels by antialiased bilinear interpolation; ``None`` leaves them."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    # Chunks, because the interpolation of some shapes goes through a float copy of all that it is given.
    chunks = images.split(_RESIZE_CHUNK)
    bilinear = transforms.InterpolationMode.BILINEAR
    return torch.cat([transforms.resize(chunk, [size, size], bilinear, antialias=True) for chunk in chunks])


def _unknown_class(name: str, dataset: str, class_names: tuple[str, ...]) -> str:
    """The message for a class that a data set does not have."""
    close = difflib.get_close_matches(name, class_names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"dataset.classes: {dataset} has no class {name!r}{hint} It has {', '.join(class_names)}"
