"""The contract that a user's mitigation keeps, kept by every one of ours."""

from typing import Any

import pytest
from chains import TINY_OPTION

from collapse_bench.testing import MitigationContract, promises

# A person is waited for: tests/mitigations/test_human_audit.py is one.
MITIGATIONS = [option.name for option in promises.options("mitigation") if option.name != "human_audit"]
# What cannot do without the origin of images is refused where it is hidden.
NEEDS_ORIGIN = {"optimal_mix"}


@pytest.fixture(scope="class", params=MITIGATIONS)
def mitigation(request: Any) -> None:
    # One generation after the first has all that a slot can decide on; in test_loop.py there are more.
    overrides = ("budget.num_generations=1", *TINY_OPTION.get(request.param, ()))
    request.cls.name, request.cls.overrides = request.param, overrides


@pytest.mark.usefixtures("mitigation")
class TestEveryMitigation(MitigationContract):
    config_dir = None
    regimes = ("augment",)  # which refuses none of them; the others are in test_loop.py
    test_it_says_what_it_is = test_it_shows_every_argument = test_it_can_be_hashed = (
        None  # test_conf.py asks all groups
    )

    def test_it_looks_at_nothing_that_is_hidden(self) -> None:
        if self.name == "provenance_weight":  # the upper bound, which says so
            with pytest.raises(AssertionError, match="another gen_001/fitted"):
                super().test_it_looks_at_nothing_that_is_hidden()
            return
        super().test_it_looks_at_nothing_that_is_hidden()
        refusal = self._trial(*self.hiding, measured=False)
        assert isinstance(refusal, str) == (self.name in NEEDS_ORIGIN), refusal
