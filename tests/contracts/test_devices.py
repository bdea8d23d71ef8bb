"""What can be said of a GPU without one: where tensors would be, and that its arithmetic trains."""

import math
from collections.abc import Iterator

import pytest
import torch
from chains import composed
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.backends import cuda, cudnn

from collapse_bench.cli.config import build
from collapse_bench.fingerprint import fingerprint
from collapse_bench.generators import processes
from collapse_bench.generators.population import PopulationModel
from collapse_bench.pool import Pool
from collapse_bench.seeding import isolated_rng
from collapse_bench.training import FitJob, TrainerOptions
from collapse_bench.types import ImageSpec

SPEC = ImageSpec(1, 8, 8, ("a", "b", "c"))
FAMILIES = ["flow", "flow_unet", "ddpm", "edm", "vae", "vae_conv", "cvae", "population"]
CHEAP = {"flow_unet": ["generator.network.channels=8"], "vae_conv": ["generator.network.channels=8"]}


@pytest.fixture
def pretended_gpu() -> Iterator[None]:
    """Tensors have a shape and a device and no content; two devices that meet are an error, as on a GPU."""
    processes._table_of_signals.cache_clear()
    with FakeTensorMode(), torch.no_grad():
        yield
    processes._table_of_signals.cache_clear()


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_samples_stay_on_the_device_of_the_model(family: str, pretended_gpu: None) -> None:
    config = composed(f"generator={family}", "sampler.truncation=2.0")
    generator, sampler = build(config["generator"], "generator"), build(config["sampler"], "sampler")
    with torch.device("cuda"):
        model = generator.empty_model(SPEC)
    seeds = torch.arange(4, device="cuda")
    labels = model.draw_labels(seeds)
    losses = model.loss(torch.zeros(4, *SPEC.shape, device="cuda"), labels)
    assert (losses.device.type, losses.shape) == ("cuda", (4,))
    if family != "population":  # which asks how many images each member has to make
        images = sampler.sample_batch(model.eval(), seeds, labels)
        assert (images.device.type, images.shape) == ("cuda", (4, *SPEC.shape))


def test_tensors_of_two_devices_are_noticed(pretended_gpu: None) -> None:
    with pytest.raises(RuntimeError, match="two devices"):
        torch.zeros(2, device="cuda") + torch.zeros(2)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_in_the_arithmetic_and_memory_format_of_a_gpu(family: str) -> None:
    config = composed("trainer=gpu", f"generator={family}", *CHEAP.get(family, []))
    options = {**config["trainer"], "accelerator": "cpu", "num_threads": 1}
    generator, sampler = build(config["generator"], "generator"), build(config["sampler"], "sampler")
    images = torch.randint(0, 256, (40, *SPEC.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pool = Pool.real(images, torch.arange(40) % 3, "random")
    model = generator.empty_model(SPEC)
    losses = generator.fit_model(model, pool, torch.ones(40), FitJob(2, 0, build(options, "trainer"), "generation 0"))
    assert all(math.isfinite(loss) for _, loss in losses)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert sampler.sample(model.eval(), torch.arange(2))[0].shape == (2, *SPEC.shape)


def test_float32_is_float32_on_a_gpu() -> None:
    before = cuda.matmul.fp32_precision, cudnn.conv.fp32_precision
    cuda.matmul.fp32_precision = cudnn.conv.fp32_precision = "tf32"
    try:
        TrainerOptions(num_threads=torch.get_num_threads()).apply()
        assert (cuda.matmul.fp32_precision, cudnn.conv.fp32_precision) == ("ieee", "ieee")
    finally:
        cuda.matmul.fp32_precision, cudnn.conv.fp32_precision = before


@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiler_takes_the_loss_of_every_family_for_one_graph(family: str) -> None:
    generator = build(composed(f"generator={family}", *CHEAP.get(family, []))["generator"], "generator")
    model = generator.empty_model(SPEC)
    for part in model.members.values() if isinstance(model, PopulationModel) else [model]:
        torch.compiler.reset()
        loss = torch.compile(part.loss, fullgraph=True, backend="eager")  # an error where it would break off
        assert loss(torch.zeros(4, *SPEC.shape), torch.arange(4) % 3).shape == (4,)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_a_compiled_fit_repeats_and_learns_what_an_uncompiled_one_does() -> None:
    generator = build(composed("generator=flow", "generator.network.width=32")["generator"], "generator")
    images = torch.randint(0, 256, (64, *SPEC.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pool = Pool.real(images, torch.arange(64) % 3, "random")

    def fit(compiled: bool) -> tuple[str, float]:
        with isolated_rng(0):
            model = generator.empty_model(SPEC)
        options = TrainerOptions(num_threads=1, compile=compiled)
        losses = generator.fit_model(model, pool, torch.ones(64), FitJob(60, 1, options, "generation 0"))
        assert losses[-1][1] < losses[0][1]
        return fingerprint(model), sum(loss for _, loss in losses) / len(losses)

    (eager, mean), (compiled, compiled_mean), again = fit(False), fit(True), fit(True)
    assert again == (compiled, compiled_mean)
    assert compiled != eager, "compiled code draws other noise"
    assert compiled_mean == pytest.approx(mean, rel=0.02)
