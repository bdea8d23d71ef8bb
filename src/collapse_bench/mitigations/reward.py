"""Curation by a reward: people pick what they like."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.base import Curator
from collapse_bench.mitigations.probe import Probe
from collapse_bench.mitigations.selection import check_candidates
from collapse_bench.now import Now, Setting
from collapse_bench.pool import Pool
from collapse_bench.samplers.base import Draw
from collapse_bench.seeding import Role


@final
@dataclass(frozen=True, kw_only=True)
class Reward(Curator):
    """Keeps one of every K candidates, candidate k with probability exp(r_k) / sum of exp(r).

    The discrete K-choice model of Ferbach et al. 2024 (arXiv:2407.09499). The reward is ``strength`` times the
    probability that a probe gives to one class. It is a scenario (people prefer some images) as much as a
    mitigation, and is expected to drive out the other classes. The probe looks at all real images with their labels.
    With ``num_choices=1`` it equals the control bit for bit; with ``strength=0`` it is the control in distribution.

    Args:
        num_choices: K, candidates per image kept.
        strength: of the reward; 5 is published for one class of CIFAR-10.
        target_class: the class that is liked.
        probe: gives its probability.
    """

    reason: ClassVar[str] = "chosen by reward"

    num_choices: int
    strength: float
    target_class: int
    probe: Probe

    def __post_init__(self) -> None:
        if self.num_choices < 1:
            raise ConfigError(f"mitigation.curator.num_choices must be at least 1, got {self.num_choices}")

    def check(self, setting: Setting) -> None:
        """Raises ConfigError if there is no such class, no label to learn, or the budget allows too few candidates."""
        self.probe.check(setting)
        if not 0 <= self.target_class < setting.spec.num_classes:
            raise ConfigError(
                f"mitigation.curator.target_class must lie between 0 and {setting.spec.num_classes - 1}, got "
                f"{self.target_class}"
            )
        check_candidates("num_choices", self.num_choices, setting)

    def choose(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """One candidate of each group of ``num_choices``."""
        candidates = draw(self.num_choices * num_needed)
        probability = self.probe.probabilities(candidates.images, now)[:, self.target_class]
        rewards = self.strength * probability.view(num_needed, self.num_choices)
        index = choose_by_reward(rewards, now.stream(Role.CURATE).generator())
        return candidates.take(index + self.num_choices * torch.arange(num_needed), because=self.reason)


def choose_by_reward(rewards: Float[Tensor, "n k"], rng: torch.Generator) -> Int64[Tensor, " n"]:
    """One position per row, drawn with probability proportional to exp(reward)."""
    return torch.multinomial(rewards.softmax(1), 1, generator=rng).squeeze(1)
