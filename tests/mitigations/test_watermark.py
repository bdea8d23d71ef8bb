import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain, composed, parts_of
from PIL import Image
from scipy.fft import dctn
from torch import Tensor

from collapse_bench.cli.config import build
from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.mitigations.control import EqualWeights
from collapse_bench.mitigations.watermark import Mark, WatermarkExclusion, WatermarkMark, coefficients, cosines

FLOW = (*TINY, *TINY_FLOW, "regime=augment", "mitigation=watermark")
MARK = Mark(key=0, min_frequency=0.4)


def marked(images: Tensor, scale: Tensor, strength: float) -> Tensor:
    return (images + strength * MARK.pattern(scale)).round().clamp(0, 255).to(torch.uint8)


def through_jpeg(images: Tensor) -> Tensor:
    """Grey images as JPEG files of quality 75 and back."""
    files = [io.BytesIO() for _ in images]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image[0].numpy()).save(file, "JPEG", quality=75)
    return torch.from_numpy(np.stack([np.array(Image.open(file)) for file in files])).unsqueeze(1)


def learnt_from(images: Tensor) -> dict[str, Tensor]:
    scale = coefficients(images).std(0).clamp(min=1.0)
    return {"scale": scale, "null": MARK.statistics(images, scale)}


@pytest.fixture(scope="module")
def mnist(shared_data: Path) -> tuple[Tensor, Tensor]:
    """5,000 images to learn from and 1,000 others."""
    config = composed("dataset=mnist", f"dataset.root={shared_data}", "dataset.num_real=5000")
    data = build(config["dataset"], "dataset").load()
    return data.pool.images, data.held_out.control.images[:1000]


def test_the_transform_is_that_of_another_implementation() -> None:
    images = torch.randint(0, 256, (3, 2, 6, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = dctn(images.double().mean(1).numpy(), axes=(1, 2), norm="ortho")
    torch.testing.assert_close(coefficients(images), torch.from_numpy(expected))


def test_the_pattern_holds_only_high_frequencies_at_the_size_of_real_ones() -> None:
    scale = torch.rand(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    pattern = MARK.pattern(scale)
    assert pattern.square().mean().item() == pytest.approx(1.0)
    found = (cosines(8) @ pattern @ cosines(8).T) * scale
    frequency = torch.maximum(torch.arange(8).unsqueeze(1), torch.arange(8)) / 8
    assert found[frequency < 0.4].abs().max() < 1e-12
    torch.testing.assert_close(found[frequency >= 0.4].abs(), found[7, 7].abs().expand(48))


def test_another_key_is_another_mark() -> None:
    scale = torch.ones(8, 8, dtype=torch.float64)
    other = replace(MARK, key=1).pattern(scale)
    assert abs((MARK.pattern(scale) * other).mean().item()) < 0.3
    assert torch.equal(other, replace(MARK, key=1).pattern(scale))


def test_marked_mnist_is_found_and_real_mnist_is_not(mnist: tuple[Tensor, Tensor]) -> None:
    real, others = mnist
    learnt = learnt_from(real)
    threshold = learnt["null"].quantile(0.99)

    def found(images: Tensor) -> float:
        return (MARK.statistics(images, learnt["scale"]) > threshold).double().mean().item()

    assert found(others) < 0.01 + 3 * (0.01 * 0.99 / len(others)) ** 0.5
    ten = marked(others, learnt["scale"], 10.0)
    assert found(ten) > 0.999
    assert found(through_jpeg(ten)) > 0.9
    assert found(through_jpeg(others)) < 0.03
    assert (ten.double() - others.double()).square().mean().sqrt() < 10.0, "clipping takes some of it away"


def test_marked_digits_of_28_pixels_are_found_also_after_jpeg_and_real_ones_are_not() -> None:
    config = composed("dataset=digits", "dataset.image_size=28")
    data = build(config["dataset"], "dataset").load()
    real, others = data.pool.images, data.held_out.control.images
    learnt = learnt_from(real)
    threshold = learnt["null"].quantile(0.99)

    def found(images: Tensor) -> float:
        return (MARK.statistics(images, learnt["scale"]) > threshold).double().mean().item()

    # The threshold is a quantile of a sample, and so is the share of others above it.
    error = (0.01 * 0.99 * (1 / len(real) + 1 / len(others))) ** 0.5
    assert found(others) < 0.01 + 3 * error
    assert found(through_jpeg(others)) < 0.01 + 3 * error
    ten = marked(others, learnt["scale"], 10.0)
    # If 3 of n are expected to be missed, all are found with a probability of 5 %.
    assert found(ten) > 1 - 3 / len(others)
    assert found(through_jpeg(ten)) > 1 - 3 / len(others)


def test_colours_carry_one_mark() -> None:
    grey = torch.randint(60, 200, (50, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scale = learnt_from(grey)["scale"]
    colours = grey.expand(-1, 3, -1, -1)
    assert torch.equal(marked(colours, scale, 8.0), marked(grey, scale, 8.0).expand(-1, 3, -1, -1))
    torch.testing.assert_close(MARK.statistics(colours, scale), MARK.statistics(grey, scale))


def test_detection_false_positives_and_the_cost_of_the_mark_are_recorded(tmp_path: Path) -> None:
    overrides = (*TINY, *TINY_FLOW, "regime=augment", "mitigation=watermark", "mitigation.curator.strength=60")
    chain = FinishedChain(tmp_path, *overrides)
    for record in chain.records:
        flagged = {score.of: score for score in record.scores if score.metric == "flagged"}
        assert set(flagged) == {"model", "kept", "unchanged", "control"}
        assert flagged["kept"].value > 0.9
        assert flagged["control"].value < 0.1
        assert flagged["control"].num_samples == 60
        assert flagged["control"].low <= flagged["control"].value <= flagged["control"].high  # type: ignore[operator]
    shares = chain.records[2].train_shares
    assert shares["real"] > 0.9
    assert sum(shares.values()) == pytest.approx(1.0)
    assert chain.records[0].spent.real_images_seen["watermark_0_0.4"] == 64
    assert set(chain.now(2).chain.kept(1).reasons) == {"marked"}


def test_another_mark_than_the_one_that_samples_carry_is_not_found(tmp_path: Path) -> None:
    another = (
        "mitigation.curator.strength=60",
        "mitigation.weigher.mark={_target_:collapse_bench.mitigations.watermark.Mark,key:1,min_frequency:0.4}",
    )
    chain = FinishedChain(tmp_path, *TINY, *TINY_FLOW, "regime=augment", "mitigation=watermark", *another)
    flagged = {score.of: score.value for score in chain.records[2].scores if score.metric == "flagged"}
    assert flagged["kept"] < 0.3
    assert chain.records[2].train_shares["gen_001"] > 0.3


def test_images_are_measured_before_and_after_they_were_marked(tmp_path: Path) -> None:
    overrides = (*FLOW, "regime=replace", "mitigation.weigher.weight=1")  # which hands on few enough to measure all
    now = FinishedChain(tmp_path, *overrides).now(2)
    kept, model = now.chain.kept(2), now.chain.model
    assert isinstance(model, Model)
    parts = parts_of(composed(*overrides), tmp_path / "store")
    plain, _ = parts.sampler.sample(model, kept.seed)
    measured = parts.measurer.measure(parts.sampler, model, kept, None, now, parts.mitigation).scores
    for of, images in (("unchanged", plain), ("kept", kept.images)):
        expected = parts.measurer.score(images, kept.labels, of)
        found = [score for score in measured if score.of == of and score.metric != "flagged"]
        assert [score.value for score in found] == pytest.approx([score.value for score in expected], nan_ok=True)
    assert not torch.equal(plain, kept.images)


def test_no_strength_and_full_weight_are_the_control(tmp_path: Path) -> None:
    options = ("mitigation.curator.strength=0", "mitigation.weigher.weight=1")
    arm = FinishedChain(tmp_path / "arm", *FLOW, *options)
    control = FinishedChain(tmp_path / "control", *FLOW, "mitigation=control")
    for t in range(3):
        files = [chain.run_dir.generation(t) / "fitted.safetensors" for chain in (arm, control)]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert torch.equal(*(chain.now(2).chain.kept(t).images for chain in (arm, control)))


def test_generation_zero_is_shared_with_the_control(tmp_path: Path) -> None:
    arms = [FinishedChain(tmp_path / m, *FLOW, f"mitigation={m}") for m in ("watermark", "control")]
    files = [arm.run_dir.generation(0) / "fitted.safetensors" for arm in arms]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("regime=replace",), "drops synthetic images, and this regime trains on no others"),
        (
            ("regime=contaminate", "regime.num_trusted=7"),
            r"8 images .* there are 7; raise regime\.num_trusted",
        ),
        (("sampler.quantize=false",), "marks grey levels"),
        (("mitigation.curator.mark.min_frequency=0.9",), "higher than all frequencies of images of 8x8"),
        (("mitigation.curator.strength=-1",), "strength must not be negative"),
        (("mitigation.weigher.weight=2",), r"weight must lie in \[0, 1\]"),
        (("mitigation.weigher.frac_false_positive=0",), "frac_false_positive must lie between 0 and 1"),
        (("mitigation.curator.mark.min_frequency=1",), r"must lie in \[0, 1\)"),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(overrides: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        parts_of(composed(*FLOW, *overrides), tmp_path)


def test_vectors_without_grey_levels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="marks grey levels"):
        parts_of(composed(*TINY_GAUSSIAN, "regime=augment", "mitigation=watermark"), tmp_path)


def test_both_slots_know_one_mark() -> None:
    mitigation = build(composed(*FLOW, "mitigation.curator.mark.key=7")["mitigation"], "mitigation")
    assert isinstance(mitigation.curator, WatermarkMark)
    assert isinstance(mitigation.weigher, WatermarkExclusion)
    assert mitigation.curator.mark == mitigation.weigher.mark == Mark(key=7, min_frequency=0.4)
    assert not isinstance(mitigation.weigher, EqualWeights)
