from pathlib import Path

import pytest
from chains import TINY, TINY_FLOW, TINY_OPTION, FinishedChain, assert_equal_chains, composed, parts_of
from torch import Tensor

from collapse_bench.errors import ConfigError
from collapse_bench.generators.base import Model
from collapse_bench.samplers.flow import FlowSampler
from collapse_bench.seeding import Role, Stream

DETECTOR = (*TINY, *TINY_FLOW, "mitigation=detector", *TINY_OPTION["detector"])
CONTAMINATE = ("regime=contaminate", "regime.num_trusted=40")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> FinishedChain:
    """A chain whose samples are easily told from real images, because its models have hardly been fitted."""
    steps = ("mitigation.weigher.discriminator.num_steps=60",)
    return FinishedChain(tmp_path_factory.mktemp("detector"), *DETECTOR, *CONTAMINATE, *steps)


def test_it_drops_what_the_previous_model_made_though_origin_is_lost(chain: FinishedChain) -> None:
    assert {"born", "source", "seed"} <= chain.pool(1).hidden
    for t in (1, 2):
        record = chain.records[t]
        num_synthetic = record.train_pool[f"gen_{t - 1:03d}"]
        assert num_synthetic >= 6
        assert record.train_shares[f"gen_{t - 1:03d}"] < 0.3 * num_synthetic / 64


def test_generation_zero_is_not_judged(chain: FinishedChain) -> None:
    assert not any(score.metric == "flagged" for score in chain.records[0].scores)
    assert chain.records[0].train_shares == {"real": 1.0}
    assert chain.records[0].spent.artefacts == ()


def test_every_later_generation_trains_one_and_says_what_it_flags(chain: FinishedChain) -> None:
    for t in (1, 2):
        record = chain.records[t]
        assert record.spent.artefacts == (f"detector_{t}",)
        assert record.spent.real_images_seen[f"detector_{t}"] == 40
        assert (record.spent.gradient_steps, record.spent.networks_trained) == (6 + 60, 2)
        assert record.spent.other_samples == 30
        assert record.spent.judging_evaluations == 64, "the pool, and not what is measured"
        flagged = {score.of: score.value for score in record.scores if score.metric == "flagged"}
        assert set(flagged) == {"model", "kept", "control"}
        assert flagged["control"] < flagged["model"]


def test_full_weight_is_the_control(tmp_path: Path) -> None:
    arm = FinishedChain(tmp_path / "arm", *DETECTOR, "regime=augment", "mitigation.weigher.weight=1")
    control = FinishedChain(tmp_path / "control", *TINY, *TINY_FLOW, "regime=augment")
    for t in range(3):
        for name in ("fitted", "kept"):
            files = [c.run_dir.generation(t) / f"{name}.safetensors" for c in (arm, control)]
            assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("name", ["detector", "time_gate"])
def test_it_learns_from_samples_made_as_those_in_the_pool_were(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steering changes the sampler after generation 0; generation 1 trains on what the earlier one made."""
    steps: dict[int, int] = {}
    sample = FlowSampler.sample_alone

    def recorded(self: FlowSampler, model: Model, seeds: Tensor) -> tuple[Tensor, Tensor]:
        steps[int(seeds[0])] = self.num_steps_taken
        return sample(self, model, seeds)

    monkeypatch.setattr(FlowSampler, "sample_alone", recorded)
    steered = (f"mitigation=[{name},annealed_truncation]", "mitigation.steering.num_generations=1")
    FinishedChain(tmp_path, *TINY, *TINY_FLOW, "regime=augment", *steered, *TINY_OPTION[name])
    roles = ((0, Role.SAMPLE), (1, Role.WEIGH), (1, Role.SAMPLE), (2, Role.WEIGH))
    assert [steps[Stream(0, t, role).seed] for t, role in roles] == [8, 8, 10, 10]


@pytest.mark.slow
def test_two_chains_are_equal(chain: FinishedChain, tmp_path: Path) -> None:
    steps = ("mitigation.weigher.discriminator.num_steps=60",)
    assert_equal_chains(chain, FinishedChain(tmp_path, *DETECTOR, *CONTAMINATE, *steps))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("regime=replace",), "mitigation=detector with weigher.weight=0 drops synthetic images"),
        (
            ("regime=contaminate", "regime.num_trusted=0"),
            r"and there are 0; raise regime\.num_trusted",
        ),
        (("mitigation.weigher.discriminator.width=7",), "multiple of 8"),
    ],
)
def test_what_makes_no_sense_is_refused_before_training(overrides: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        parts_of(composed(*DETECTOR, *overrides), tmp_path)
