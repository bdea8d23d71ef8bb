from pathlib import Path

import pytest
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed, parts_of

from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.schedule import Schedule

ANNEALED = ("mitigation=annealed_temperature",)


def options(**arguments: object) -> tuple[str, ...]:
    return (*ANNEALED, *(f"mitigation.steering.{name}={value}" for name, value in arguments.items()))


@pytest.mark.parametrize(("shape", "values"), [("linear", [1.0, 2.5, 4.0, 4.0]), ("geometric", [1.0, 2.0, 4.0, 4.0])])
def test_values_by_hand(shape: str, values: list[float]) -> None:
    schedule = Schedule("sampler.temperature", 1.0, 4.0, 2, shape)  # type: ignore[arg-type]
    assert [schedule.value(t) for t in range(4)] == values


def test_only_the_named_option_changes(tmp_path: Path) -> None:
    config = composed(*TINY, *TINY_FLOW, *options(option="generator.optimisation.learning_rate", first=0.1, last=0.2))
    parts = parts_of(config, tmp_path)
    generator = parts.mitigation.steering.steer_fit(parts.generator, 5)
    assert generator.optimisation.learning_rate == 0.2  # type: ignore[attr-defined]
    assert generator.network == parts.generator.network  # type: ignore[attr-defined]
    assert parts.mitigation.steering.steer_sampling(parts.sampler, 5) is parts.sampler


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    parts = parts_of(composed(*TINY, *TINY_FLOW, *options(option="sampler.num_steps", first=4, last=7)), tmp_path)
    steered = [parts.mitigation.steering.steer_sampling(parts.sampler, t) for t in (0, 1, 5)]
    assert [sampler.num_steps for sampler in steered] == [4, 5, 7]  # type: ignore[attr-defined]


def test_a_whole_number_on_the_command_line_does_not_round_a_schedule(tmp_path: Path) -> None:
    parts = parts_of(composed(*TINY, *TINY_FLOW, *ANNEALED, "sampler.temperature=1"), tmp_path)
    assert parts.mitigation.steering.steer_sampling(parts.sampler, 0).temperature == 0.9  # type: ignore[attr-defined]


def test_truncation_can_be_scheduled_where_it_has_a_value(tmp_path: Path) -> None:
    schedule = options(option="sampler.truncation", first=1, last=3, num_generations=2)
    parts = parts_of(composed(*TINY, *TINY_FLOW, *schedule, "sampler.truncation=2"), tmp_path)
    steered = [parts.mitigation.steering.steer_sampling(parts.sampler, t) for t in range(3)]
    assert [sampler.truncation for sampler in steered] == [1.0, 2.0, 3.0]  # type: ignore[attr-defined]


def test_a_falling_temperature_narrows_the_samples(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *TINY_GAUSSIAN, "regime=real", *options(first=1.0, last=0.01, num_generations=2))
    spreads = [chain.now(3).chain.kept(t).images.std(0).mean().item() for t in range(4)]
    assert spreads[0] > 1.5 * spreads[1] > 30 * spreads[2]
    assert spreads[3] == pytest.approx(spreads[2], rel=0.5)


@pytest.mark.parametrize("shape", ["linear", "geometric"])
@pytest.mark.parametrize("family", [(*TINY, *TINY_FLOW), TINY_GAUSSIAN], ids=["flow", "gaussian"])
def test_a_constant_schedule_is_the_control(family: tuple[str, ...], shape: str, tmp_path: Path) -> None:
    arm = FinishedChain(tmp_path / "arm", *family, *options(first=1.0, last=1.0, shape=shape))
    assert_equal_chains(arm, FinishedChain(tmp_path / "control", *family))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"option": "sampler.temprature"}, "temprature.*did you mean sampler.temperature"),
        ({"option": "generator.start"}, "no such number"),
        ({"option": "generator.network.width", "first": 16, "last": 32}, "shapes of the network"),
        ({"last": -1.0}, "temperature must not be negative"),
        ({"option": "sampler.truncation", "first": 2}, "it is null, and a schedule needs a number.*truncation=2"),
        ({"option": "sampler.guidance", "first": 0}, "needs a model that knows images with and without a class"),
        ({"num_generations": 0}, "num_generations must be at least 1"),
        ({"shape": "geometric", "first": 0.0}, "from a positive number"),
        ({"shape": "sudden"}, "one of linear, geometric"),
    ],
)
def test_impossible_schedules_are_refused_before_training(arguments: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        parts_of(composed(*TINY, *TINY_FLOW, *options(**arguments)), tmp_path)
