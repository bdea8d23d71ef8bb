from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_OPTION, FinishedChain, assert_equal_chains, composed, parts_of
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.diffusion import NoisyModel
from collapse_bench.generators.processes import FlowMatching
from collapse_bench.pool import UNLABELLED
from collapse_bench.samplers.base import Sampler

GUIDED = (*TINY, *TINY_FLOW, *TINY_OPTION["guidance_decay"])
DECAY = ("mitigation=guidance_decay", "mitigation.steering.num_generations=2")


def test_guidance_falls_to_none_and_its_second_network_with_it(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *GUIDED, *DECAY)
    sampler = chain.parts.sampler
    assert isinstance(sampler, Sampler)
    steered = [chain.parts.mitigation.steering.steer_sampling(sampler, t) for t in range(3)]
    assert [sampler.guidance for sampler in steered] == [1.0, 0.5, 0.0]
    assert [record.spent.network_evaluations_per_sample for record in chain.records] == [40, 40, 20]


class Pulls(NoisyModel):
    """Everything moves at speed 2 with a class, and at speed 1 without."""

    def predict(self, x: Tensor, level: Tensor, labels: Tensor) -> Tensor:
        return torch.where(labels == UNLABELLED, 1.0, 2.0).view(-1, 1, 1, 1).expand_as(x)


def test_samples_of_each_generation_by_hand(tmp_path: Path) -> None:
    parts = parts_of(composed(*GUIDED, *DECAY, "sampler.temperature=0"), tmp_path)
    assert isinstance(parts.sampler, Sampler)
    model = Pulls(parts.setting.spec, True, FlowMatching(times="uniform", coupling="independent"), 0.1)
    seeds = torch.arange(3)
    for generation, weight in ((0, 1.0), (1, 0.5), (2, 0.0)):
        sampler = parts.mitigation.steering.steer_sampling(parts.sampler, generation)
        images = sampler.sample_batch(model, seeds, torch.zeros_like(seeds))
        # From 0, which is the noise at temperature 0, for a time of 1 at the guided speed.
        torch.testing.assert_close(images, torch.full_like(images, 2.0 + weight * (2.0 - 1.0)))


def test_a_whole_number_in_the_sampler_does_not_round_the_schedule(tmp_path: Path) -> None:
    parts = parts_of(composed(*GUIDED, *DECAY, "sampler.guidance=1"), tmp_path)
    assert isinstance(parts.sampler, Sampler)
    assert parts.mitigation.steering.steer_sampling(parts.sampler, 1).guidance == 0.5


def test_no_guidance_is_the_control(tmp_path: Path) -> None:
    arm = FinishedChain(tmp_path / "arm", *GUIDED, *DECAY, "mitigation.steering.first=0")
    assert_equal_chains(arm, FinishedChain(tmp_path / "control", *GUIDED))


@pytest.mark.parametrize("missing", ["generator.conditional=false", "generator.condition_dropout=0"])
def test_it_is_refused_before_training_for_a_model_that_cannot_be_guided(missing: str, tmp_path: Path) -> None:
    options = [option for option in TINY_OPTION["guidance_decay"] if option.startswith("generator.conditional")]
    options = [missing] if "conditional=" in missing else [*options, missing]
    with pytest.raises(ConfigError, match=r"generator\.conditional=true and generator\.condition_dropout=0\.1"):
        parts_of(composed(*TINY, *TINY_FLOW, *options, *DECAY), tmp_path)
