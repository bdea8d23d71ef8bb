from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed
from safetensors.torch import load_file

from collapse_bench.cli.config import build
from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Generator, Model
from collapse_bench.generators.population import Population
from collapse_bench.mitigations.neon import Neon
from collapse_bench.seeding import Role

FLOW = (*TINY, *TINY_FLOW, "generator.conditional=true")
NEON = ("mitigation=neon", "mitigation.refiner.num_samples=20", "mitigation.refiner.num_steps=3")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> FinishedChain:
    return FinishedChain(tmp_path_factory.mktemp("neon"), *FLOW, *NEON)


def test_it_goes_away_from_the_self_trained_model(chain: FinishedChain) -> None:
    now, refiner = chain.now(2), chain.parts.mitigation.refiner
    fitted, model = now.chain.fitted, now.chain.model
    assert isinstance(refiner, Neon)
    assert isinstance(fitted, Model)
    assert model is not None
    theta_r = dict(fitted.named_parameters())
    theta_s = dict(refiner.self_trained(fitted, now).named_parameters())
    for name, parameter in model.named_parameters():
        here, there = theta_r[name].double(), theta_s[name].double()
        assert torch.equal(parameter, (here - 0.5 * (there - here)).float()), name
    assert sum(int((model.get_parameter(name) != theta_r[name]).sum()) for name in theta_r) > 100


def test_buffers_are_those_of_the_fitted_model(chain: FinishedChain) -> None:
    folder = chain.run_dir.generation(1)
    theta_r, theta = (load_file(folder / f"{name}.safetensors") for name in ("fitted", "model"))
    assert torch.equal(theta["label_shares"], theta_r["label_shares"])


def test_what_it_spends_is_metered(chain: FinishedChain) -> None:
    spent = chain.records[1].spent
    assert (spent.gradient_steps, spent.networks_trained, spent.other_samples) == (6 + 3, 2, 20)
    assert spent.candidates == spent.kept == 40, "its own samples are no candidates"
    assert spent.real_images_seen["refine"] == 0


def test_a_warm_start_continues_from_the_fitted_model(chain: FinishedChain) -> None:
    now = chain.now(3)
    files = [load_file(chain.run_dir.generation(2) / f"{name}.safetensors") for name in ("fitted", "model")]
    for model, file in zip((now.chain.fitted, now.chain.model), files, strict=True):
        assert model is not None
        assert all(torch.equal(tensor, file[name]) for name, tensor in model.state_dict().items())


def test_a_gaussian_by_hand(tmp_path: Path) -> None:
    """The mean goes away from that of the model's own samples."""
    overrides = (*TINY_GAUSSIAN, "mitigation=neon", "mitigation.refiner.w=2", "budget.num_generations=0")
    chain = FinishedChain(tmp_path, *overrides)
    folder = chain.run_dir.generation(0)
    fitted, model = (load_file(folder / f"{name}.safetensors")["mean"] for name in ("fitted", "model"))
    now = chain.now(0)
    gaussian = now.chain.fitted
    assert isinstance(gaussian, Model)
    own = now.sample(gaussian, 1000, Role.REFINE).images.flatten(1).double()
    torch.testing.assert_close(model, fitted - 2 * (own.mean(0) - fitted))


@pytest.mark.parametrize("family", [FLOW, TINY_GAUSSIAN], ids=["flow", "gaussian"])
def test_without_extrapolation_it_is_the_control_and_costs_nothing(family: tuple[str, ...], tmp_path: Path) -> None:
    arm = FinishedChain(tmp_path / "arm", *family, "mitigation=neon", "mitigation.refiner.w=0")
    assert_equal_chains(arm, FinishedChain(tmp_path / "control", *family))


def test_two_chains_are_equal(chain: FinishedChain, tmp_path: Path) -> None:
    assert_equal_chains(chain, FinishedChain(tmp_path, *FLOW, *NEON))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"w": -1.0}, "w must not be negative"),
        ({"num_samples": 1}, "num_samples"),
        ({"num_steps": 0}, "num_steps"),
        ({"learning_rate_factor": 0.0}, "learning_rate_factor must be above 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Neon(**{"w": 0.5, "num_samples": 10, "num_steps": 1, "learning_rate_factor": 0.1, **arguments})


def test_the_copy_is_fitted_more_slowly_by_the_factor(chain: FinishedChain) -> None:
    now, refiner = chain.now(2), chain.parts.mitigation.refiner
    fitted = now.chain.fitted
    assert isinstance(refiner, Neon)
    assert isinstance(fitted, Model)

    def distance(factor: float) -> float:
        copy = replace(refiner, learning_rate_factor=factor).self_trained(fitted, now)
        pairs = zip(copy.parameters(), fitted.parameters(), strict=True)
        return sum((a - b).square().sum().item() for a, b in pairs) ** 0.5

    # Steps of Adam have the length of the learning rate, whatever the gradient.
    assert distance(0.1) / distance(1.0) == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("name", ["flow", "vae", "population"])
def test_the_learning_rate_of_every_family_is_scaled(name: str) -> None:
    def rates(generator: Generator) -> list[float]:
        members = generator.members.values() if isinstance(generator, Population) else [generator]
        return [member.optimisation.learning_rate for member in members]  # type: ignore[attr-defined]

    generator = build(composed(f"generator={name}")["generator"], "generator")
    assert rates(generator.with_learning_rate_times(0.1)) == [0.1 * rate for rate in rates(generator)]
    assert generator.with_learning_rate_times(1.0) == generator
