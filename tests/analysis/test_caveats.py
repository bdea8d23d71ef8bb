from dataclasses import replace

import pytest

from collapse_bench.analysis.caveats import caveats
from collapse_bench.analysis.runs import find_runs
from collapse_bench.records import Score

FEATURES = {"_target_": "Pixels", "num_components": 16}


@pytest.mark.parametrize(
    ("chosen_by", "encoders", "told"),
    [
        (FEATURES, {"pca": {"_target_": "WithClasses", "features": FEATURES}}, True),
        (FEATURES, {"pixels": FEATURES}, True),
        (FEATURES, {"pixels": {**FEATURES, "num_components": 32}}, False),
        (FEATURES, {"pixels": FEATURES, "classifier": {"_target_": "Classifier"}}, True),
        (FEATURES, {"classifier": {"_target_": "Classifier"}, "pixels": FEATURES}, False),
        (None, {"pixels": FEATURES}, False),
    ],
)
@pytest.mark.parametrize("has_probe", [False, True])
def test_a_selection_by_the_features_of_the_plain_numbers_is_said(
    chosen_by, encoders, told, has_probe, make_run, tmp_path
):
    chooser = {} if chosen_by is None else {"features": chosen_by}
    curator = {"_target_": "Curator", **({"probe": chooser} if has_probe else chooser)}
    make_run("plain", config={"encoder": encoders})
    make_run("chosen", choices={"mitigation": "ds3"}, config={"encoder": encoders, "mitigation": {"curator": curator}})
    found = [caveat for caveat in caveats(find_runs(tmp_path)) if "by the features of the first encoder" in caveat]
    assert len(found) == told
    assert all("In ds3 images" in caveat for caveat in found)


def test_samples_that_repeat_are_said_because_recall_rises_with_them(chain):
    once = chain({"recall": [0.9, 0.8], "duplicates": [0.0, 0.04]})
    again = chain({"recall": [0.9, 1.0], "duplicates": [0.0, 0.6]}, regime="window")
    (found,) = [caveat for caveat in caveats([once, again]) if "repeat each other" in caveat]
    assert found.startswith("In window samples")


def test_a_control_set_that_the_floor_does_not_reach_is_said(chain):
    def with_floor(value: float) -> list[str]:
        run = chain({"fid": [3.0, 4.0]})  # whose control set scores 2.0
        floor = Score("fid", "floor", value, 450, 450, "lower", spread=0.1)
        records = tuple(replace(record, scores=(*record.scores, floor)) for record in run.records)
        return [caveat for caveat in caveats([replace(run, records=records)]) if "standard deviations" in caveat]

    assert with_floor(1.8) == []
    assert "fid 2 beside 1.5 ± 0.1" in with_floor(1.5)[0]
