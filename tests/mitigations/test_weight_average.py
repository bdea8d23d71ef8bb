from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed, parts_of
from safetensors.torch import load_file

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.weight_average import WeightAverage

AVERAGE = ("mitigation=weight_average", "mitigation.refiner.rate=0.25")


def means(chain: FinishedChain, name: str) -> list[torch.Tensor]:
    folders = [chain.run_dir.generation(t) for t in range(4)]
    return [load_file(f / f"{name}.safetensors")["mean"] for f in folders if (f / f"{name}.safetensors").exists()]


def test_the_average_by_hand(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *TINY_GAUSSIAN, *AVERAGE)
    fitted, averaged = means(chain, "fitted"), means(chain, "model")
    assert len(averaged) == 3, "generation 0 starts it"
    expected = fitted[0]
    for t in (1, 2, 3):
        expected = 0.25 * expected + 0.75 * fitted[t]
        torch.testing.assert_close(averaged[t - 1], expected)


def test_a_rate_of_one_stays_at_generation_zero(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *TINY_GAUSSIAN, "mitigation=weight_average", "mitigation.refiner.rate=1")
    for mean in means(chain, "model"):
        torch.testing.assert_close(mean, means(chain, "fitted")[0])


@pytest.mark.parametrize("family", [(*TINY, *TINY_FLOW), TINY_GAUSSIAN], ids=["flow", "gaussian"])
def test_a_rate_of_zero_is_the_control(family: tuple[str, ...], tmp_path: Path) -> None:
    arm = FinishedChain(tmp_path / "arm", *family, "mitigation=weight_average", "mitigation.refiner.rate=0")
    assert_equal_chains(arm, FinishedChain(tmp_path / "control", *family))


def test_networks_from_scratch_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"generator\.start=warm"):
        parts_of(composed(*TINY, *TINY_FLOW, "generator.start=scratch", "mitigation=weight_average"), tmp_path)


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_rates_outside_the_range_are_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"rate must lie in \[0, 1\]"):
        WeightAverage(rate)


def test_a_warm_start_that_steering_makes_will_do(tmp_path: Path) -> None:
    mitigations = "mitigation=[weight_average,warm_small_step]"
    parts = parts_of(composed(*TINY, *TINY_FLOW, "generator.start=scratch", mitigations), tmp_path)
    assert parts.setting.generator_at(1).start == "warm"
