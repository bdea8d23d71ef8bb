"""What every weigher promises, for every option of the group that has one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_OPTION, FinishedChain
from weighing import with_garbage

from collapse_bench.cli.config import conf_dir
from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.provenance_weight import ProvenanceWeight
from collapse_bench.pool import Pool
from collapse_bench.testing import promises
from collapse_bench.testing.promises import Option

CHAIN = (*TINY, *TINY_FLOW, "generator.conditional=true", "regime=contaminate", "regime.num_trusted=40")
WEIGHERS = sorted(p.stem for p in Path(conf_dir(), "mitigation").glob("*.yaml") if "\nweigher:" in p.read_text())


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> FinishedChain:
    return FinishedChain(tmp_path_factory.mktemp("weighers"), *CHAIN)


@pytest.mark.parametrize("option", WEIGHERS)
def test_garbage_in_hidden_columns_changes_no_weight(option: str, chain: FinishedChain, tmp_path: Path) -> None:
    mine = Option("mitigation", option, overrides=TINY_OPTION.get(option, ()))
    if option == "optimal_mix":  # which cannot do without
        with pytest.raises(ConfigError, match="this regime hides it"):
            promises.looks_at_no_hidden_column(chain, mine, tmp_path, *CHAIN)
    elif isinstance(mine.built().weigher, ProvenanceWeight):  # the upper bound, which says so
        with pytest.raises(AssertionError, match="looks at a hidden column"):
            promises.looks_at_no_hidden_column(chain, mine, tmp_path, *CHAIN)
    else:
        promises.looks_at_no_hidden_column(chain, mine, tmp_path, *CHAIN)


def test_there_are_weighers() -> None:
    assert len(WEIGHERS) >= 5
    assert not torch.equal(with_garbage(replace_hidden(2)).born, replace_hidden(2).born)


def replace_hidden(count: int) -> Pool:
    pool = Pool.real(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64), "zeros")
    return replace(pool, hidden=frozenset({"born"}))
