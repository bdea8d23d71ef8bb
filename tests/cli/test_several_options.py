"""Several options of one group in one run."""

import pytest
from chains import TINY, composed

from collapse_bench.cli.config import build, check_command_line
from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.neon import Neon
from collapse_bench.mitigations.schedule import Schedule
from collapse_bench.mitigations.watermark import WatermarkExclusion, WatermarkMark


@pytest.mark.parametrize("order", ["neon,watermark,annealed_temperature", "annealed_temperature,watermark,neon"])
def test_mitigations_that_fill_different_slots_go_together(order: str) -> None:
    check_command_line([f"mitigation=[{order}]"])
    mitigation = build(composed(*TINY, f"mitigation=[{order}]")["mitigation"], "mitigation")
    types = [type(slot) for slot in (mitigation.steering, mitigation.weigher, mitigation.refiner, mitigation.curator)]
    assert types == [Schedule, WatermarkExclusion, Neon, WatermarkMark]


@pytest.mark.parametrize(
    ("options", "slot"),
    [("neon,sims", "refiner"), ("watermark,self_correction", "curator"), ("optimal_mix,detector", "weigher")],
)
@pytest.mark.parametrize("sweep", [False, True])
def test_two_mitigations_for_one_slot_are_refused_and_named(options: str, slot: str, sweep: bool) -> None:
    arguments = ["-m", f"mitigation=[{options}],control"] if sweep else [f"mitigation=[{options}]"]
    with pytest.raises(ConfigError, match=rf"mitigation=\[{options}\]: both fill mitigation\.{slot}"):
        check_command_line(arguments)


def test_the_control_goes_with_everything() -> None:
    check_command_line(["mitigation=[control,neon]"])
    together, alone = (composed(*TINY, f"mitigation={choice}")["mitigation"] for choice in ("[control,neon]", "neon"))
    assert together == alone
