import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from curating import PIXELS, Bench, points

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.probe import Probe
from collapse_bench.mitigations.reward import Reward, choose_by_reward

CURATOR = Reward(num_choices=2, strength=5.0, target_class=1, probe=Probe(features=PIXELS, ridge=1e-4))
REAL = {"real": points(0, 5, 10, 245, 250, 255), "real_labels": [0, 0, 0, 1, 1, 1]}


def bench(tmp_path: Path, count: int = 400) -> Bench:
    """Candidates of the two classes in turn."""
    return Bench(tmp_path, points(*[3, 251] * (count // 2)), **REAL)


def test_choices_follow_the_softmax_of_the_rewards() -> None:
    rewards = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64).expand(4000, 2)
    share = choose_by_reward(rewards, torch.Generator().manual_seed(0)).double().mean().item()
    assert abs(share - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4000)


def test_the_liked_class_wins_as_often_as_the_formula_says(tmp_path: Path) -> None:
    images = bench(tmp_path).curate(CURATOR, 200).images
    share = (images > 128).double().mean().item()
    expected = math.exp(5) / (1 + math.exp(5))  # the probe is all but certain
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 200) + 0.01


def test_one_is_kept_of_every_group(tmp_path: Path) -> None:
    kept = bench(tmp_path, 40).kept(replace(CURATOR, num_choices=4, strength=0.0), 10)
    assert [position // 4 for position in kept] == list(range(10))


def test_with_one_choice_it_is_the_control(tmp_path: Path) -> None:
    bench(tmp_path).assert_equals_control(replace(CURATOR, num_choices=1), 40)


def test_options_out_of_range_are_refused(tmp_path: Path) -> None:
    setting = bench(tmp_path).setting
    with pytest.raises(ConfigError, match=r"target_class must lie between 0 and 1, got 2"):
        replace(CURATOR, target_class=2).check(setting)
    with pytest.raises(ConfigError, match="num_choices=21 is more than"):
        replace(CURATOR, num_choices=21).check(setting)
    with pytest.raises(ConfigError, match="num_choices"):
        replace(CURATOR, num_choices=0)
