from pathlib import Path

import numpy as np
import pytest
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed, parts_of
from safetensors.numpy import load_file

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.warm_small_step import WarmSmallStep

FLOW = (*TINY, *TINY_FLOW)


def test_generation_zero_takes_whole_steps_and_later_ones_small_ones(tmp_path: Path) -> None:
    parts = parts_of(composed(*FLOW, "generator.start=scratch"), tmp_path)
    steered = [WarmSmallStep(0.1).steer_fit(parts.generator, t) for t in (0, 1, 2)]
    assert [generator.start for generator in steered] == ["scratch", "warm", "warm"]
    rates = [generator.optimisation.learning_rate for generator in steered]  # type: ignore[attr-defined]
    assert rates == pytest.approx([3e-3, 3e-4, 3e-4])


def test_a_model_stays_close_to_its_parent(tmp_path: Path) -> None:
    distance = []
    for factor in (1.0, 0.01):
        options = ("mitigation=warm_small_step", f"mitigation.steering.factor={factor}")
        chain = FinishedChain(tmp_path / str(factor), *FLOW, *options)
        files = [load_file(chain.run_dir.generation(t) / "fitted.safetensors") for t in (0, 1)]
        distance.append(np.abs(files[0]["network.inner.weight"] - files[1]["network.inner.weight"]).mean())
    assert 0 < distance[1] < 0.05 * distance[0]


def test_whole_steps_are_the_control_with_a_warm_start(tmp_path: Path) -> None:
    arm = FinishedChain(tmp_path / "arm", *FLOW, "mitigation=warm_small_step", "mitigation.steering.factor=1")
    assert_equal_chains(arm, FinishedChain(tmp_path / "control", *FLOW, "generator.start=warm"))


def test_a_generator_without_steps_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="mitigation=warm_small_step changes the learning rate, and Gaussian has none"
    ):
        parts_of(composed(*TINY_GAUSSIAN, "mitigation=warm_small_step"), tmp_path)


def test_a_factor_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="factor must be above 0"):
        WarmSmallStep(0.0)
