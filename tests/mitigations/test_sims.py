from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed, parts_of
from safetensors.torch import load_file
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.diffusion import NoisyModel
from collapse_bench.generators.processes import FlowMatching
from collapse_bench.mitigations.sims import SIMS, ContrastedModel
from collapse_bench.types import ImageSpec

FLOW = (*TINY, *TINY_FLOW, "generator.conditional=true")
OPTIONS = ("mitigation=sims", "mitigation.refiner.num_samples=20", "mitigation.refiner.num_steps=3")


class Constant(NoisyModel):
    """The same prediction everywhere."""

    def __init__(self, value: float) -> None:
        process = FlowMatching(times="uniform", coupling="independent")
        super().__init__(ImageSpec(1, 2, 2, ("a", "b")), False, process, 0.0)
        self.value = value

    def predict(self, x: Tensor, level: Tensor, labels: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> FinishedChain:
    return FinishedChain(tmp_path_factory.mktemp("sims"), *FLOW, *OPTIONS)


def test_the_prediction_by_hand() -> None:
    pair = ContrastedModel(Constant(2.0), Constant(3.0), omega=0.5)
    prediction = pair.predict(torch.zeros(1, 1, 2, 2), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    assert prediction.unique().tolist() == [1.5 * 2.0 - 0.5 * 3.0]


def test_samples_come_from_the_pair_and_pairs_are_stored_and_loaded(chain: FinishedChain) -> None:
    now = chain.now(2)
    model = now.chain.model
    assert isinstance(model, ContrastedModel)
    kept = now.chain.kept(2)
    images, labels = chain.parts.sampler.sample(model, kept.seed)
    assert torch.equal(images, kept.images)
    assert torch.equal(labels, kept.labels)
    alone, _ = chain.parts.sampler.sample(model.fitted, kept.seed)
    assert not torch.equal(alone, kept.images)


def test_a_warm_start_continues_from_the_fitted_network_never_from_the_pair(chain: FinishedChain) -> None:
    fitted = load_file(chain.run_dir.generation(1) / "fitted.safetensors")
    pair = load_file(chain.run_dir.generation(1) / "model.safetensors")
    assert all(torch.equal(pair[f"fitted.{name}"], tensor) for name, tensor in fitted.items())
    assert set(fitted) == set(load_file(chain.run_dir.generation(2) / "fitted.safetensors"))


def test_two_networks_are_metered(chain: FinishedChain) -> None:
    record = chain.records[1]
    assert record.spent.network_evaluations_per_sample == 2 * chain.parts.sampler.num_evaluations
    assert (record.spent.gradient_steps, record.spent.networks_trained, record.spent.other_samples) == (9, 2, 20)
    alone = chain.parts.generator.empty_model(chain.parts.setting.spec).num_parameters
    assert record.num_parameters == 2 * alone


def test_without_contrast_it_is_the_control_and_costs_nothing(tmp_path: Path) -> None:
    arm = FinishedChain(tmp_path / "arm", *FLOW, "mitigation=sims", "mitigation.refiner.omega=0")
    assert_equal_chains(arm, FinishedChain(tmp_path / "control", *FLOW))


@pytest.mark.parametrize("family", [TINY_GAUSSIAN, (*TINY, "generator=vae")], ids=["gaussian", "vae"])
def test_other_families_are_refused_before_training(family: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mitigation=sims combines what two diffusion or flow models predict"):
        parts_of(composed(*family, "mitigation=sims"), tmp_path)


def test_a_negative_contrast_is_refused() -> None:
    with pytest.raises(ConfigError, match="omega must not be negative"):
        SIMS(omega=-0.1, num_samples=10, num_steps=1, learning_rate_factor=0.1)
