"""What goes by the class of a sample is refused where samples have none, unless it is told to do without."""

from pathlib import Path

import pytest
from chains import TINY, TINY_FLOW, composed, parts_of
from curating import Bench, noise

from collapse_bench.errors import CombinationError, ConfigError
from collapse_bench.mitigations.self_correction import SelfCorrection
from collapse_bench.testing.promises import options

FLOW = (*TINY, *TINY_FLOW)
PER_CLASS = [option.name for option in options("mitigation") if "per_class:" in option.file.read_text()]


@pytest.mark.parametrize("name", PER_CLASS)
def test_samples_without_a_class_are_refused_with_the_remedies_which_help(name: str, tmp_path: Path) -> None:
    cell = (*FLOW, f"mitigation={name}")
    with pytest.raises(CombinationError, match=f"mitigation={name} needs the class of each sample") as refusal:
        parts_of(composed(*cell), tmp_path)
    for remedy in ("labels=classifier", "generator.conditional=true", "mitigation.curator.per_class=false"):
        assert remedy in str(refusal.value)
        assert parts_of(composed(*cell, remedy), tmp_path).mitigation is not None


def test_where_there_is_one_class_nothing_is_asked_for(tmp_path: Path) -> None:
    curator = SelfCorrection(strength=1.0, num_clusters=2)
    curator.check(Bench(tmp_path, noise(4), real_labels=[0] * 4).setting)
    with pytest.raises(ConfigError, match="needs the class of each sample"):
        curator.check(Bench(tmp_path, noise(4), real_labels=[0, 0, 0, 1]).setting)
