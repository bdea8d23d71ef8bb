from pathlib import Path

import pytest
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain, assert_equal_chains, composed, parts_of

from collapse_bench.errors import ConfigError

FLOW = (*TINY, *TINY_FLOW)
ANNEALED = ("mitigation=annealed_truncation", "mitigation.steering.num_generations=2")


def test_early_generations_stop_early_and_late_ones_do_not(tmp_path: Path) -> None:
    arm, control = FinishedChain(tmp_path / "arm", *FLOW, *ANNEALED), FinishedChain(tmp_path / "control", *FLOW)
    # 8, 9 and 10 of the ten steps of the midpoint method.
    assert [record.spent.network_evaluations_per_sample for record in arm.records] == [16, 18, 20]
    assert [record.spent.network_evaluations_per_sample for record in control.records] == [20, 20, 20]
    files = [chain.run_dir.generation(0) / "fitted.safetensors" for chain in (arm, control)]
    assert files[0].read_bytes() == files[1].read_bytes(), "only sampling differs"
    stopped, whole = (chain.now(2).chain.kept(0) for chain in (arm, control))
    assert (stopped.seed == whole.seed).all()
    assert (stopped.images != whole.images).float().mean() > 0.5


def test_never_stopping_is_the_control(tmp_path: Path) -> None:
    arm = FinishedChain(tmp_path / "arm", *FLOW, *ANNEALED, "mitigation.steering.first=0")
    assert_equal_chains(arm, FinishedChain(tmp_path / "control", *FLOW))


@pytest.mark.parametrize(
    ("family", "words"),
    [
        (TINY_GAUSSIAN, "option=sampler.early_stop: the generator and the sampler have no such number"),
        ((*FLOW, "mitigation.steering.first=1.0"), r"early_stop must lie in \[0, 1\)"),
    ],
    ids=["gaussian", "everything"],
)
def test_it_is_refused_before_training_where_there_is_nothing_to_stop(
    family: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        parts_of(composed("mitigation=annealed_truncation", *family), tmp_path)
