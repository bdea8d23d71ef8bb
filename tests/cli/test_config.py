"""From names in a configuration to classes."""

import pytest

from collapse_bench.cli.config import build
from collapse_bench.errors import ConfigError


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("collapse_bench.regimes.replace.Replac", r"in collapse_bench\.regimes\.replace; did you mean Replace\?"),
        (
            "collapse_bench.regimes.replce.Replace",
            r"ModuleNotFoundError: No module named 'collapse_bench\.regimes\.rep",
        ),
        ("nowhere.Part", r"No module named 'nowhere'\); install nowhere, or name its folder: PYTHONPATH=FOLDER"),
        ("collapse_bench.regimes.base.abstractmethod", r"there is no such class in collapse_bench\.regimes\.base"),
    ],
)
def test_a_class_that_is_not_there_is_one_error_with_the_nearest_match_or_the_remedy(
    target: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        build({"_target_": target}, "regime")
    assert str(error.value).startswith(f"regime._target_={target}: there is no such class")
    assert capsys.readouterr() == ("", "")
