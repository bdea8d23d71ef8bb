import pytest

from collapse_bench.analysis.caveats import caveats
from collapse_bench.analysis.runs import find_runs

FEATURES = {"_target_": "Pixels", "num_components": 16}


@pytest.mark.parametrize(
    ("chosen_by", "encoders", "told"),
    [
        (FEATURES, {"pca": {"_target_": "WithClasses", "features": FEATURES}}, True),
        (FEATURES, {"pixels": FEATURES}, True),
        (FEATURES, {"pixels": {**FEATURES, "num_components": 32}}, False),
        (FEATURES, {"pixels": FEATURES, "classifier": {"_target_": "Classifier"}}, False),
        (None, {"pixels": FEATURES}, False),
    ],
)
def test_a_selection_by_the_only_features_that_measure_is_said(chosen_by, encoders, told, make_run, tmp_path):
    curator = {"_target_": "Curator"} if chosen_by is None else {"_target_": "Curator", "features": chosen_by}
    make_run("plain", config={"encoder": encoders})
    make_run("chosen", choices={"mitigation": "ds3"}, config={"encoder": encoders, "mitigation": {"curator": curator}})
    found = [caveat for caveat in caveats(find_runs(tmp_path)) if "by the features that measure" in caveat]
    assert len(found) == told
    assert all("In ds3 images" in caveat for caveat in found)
