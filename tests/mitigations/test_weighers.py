"""What every weigher promises, for every option of the group that has one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_OPTION, FinishedChain, composed, parts_of
from weighing import with_garbage

from collapse_bench.cli.config import build, conf_dir
from collapse_bench.errors import ConfigError
from collapse_bench.mitigations.provenance_weight import ProvenanceWeight
from collapse_bench.now import Now
from collapse_bench.pool import Pool

CHAIN = (*TINY, *TINY_FLOW, "generator.conditional=true", "regime=contaminate", "regime.num_trusted=40")
WEIGHERS = sorted(p.stem for p in Path(conf_dir(), "mitigation").glob("*.yaml") if "\nweigher:" in p.read_text())


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> FinishedChain:
    return FinishedChain(tmp_path_factory.mktemp("weighers"), *CHAIN)


def weigh(option: str, chain: FinishedChain, pool: Pool, folder: Path) -> torch.Tensor:
    """Weights, and gates where there are some, one row each."""
    parts = parts_of(composed(*CHAIN, f"mitigation={option}", *TINY_OPTION.get(option, ())), folder / "store")
    now = Now(1, 0, parts.setting, chain.now(1).chain)
    weights = parts.mitigation.weigher.weigh(pool.visible(), now)
    assert weights.shape == (64,)
    assert weights.dtype == torch.float64
    gate = parts.mitigation.weigher.gate(pool.visible(), now)
    assert (gate is None) == (option != "time_gate")
    return torch.stack([weights, weights if gate is None else gate])


@pytest.mark.parametrize("option", WEIGHERS)
def test_garbage_in_hidden_columns_changes_no_weight(option: str, chain: FinishedChain, tmp_path: Path) -> None:
    pool = chain.pool(1)
    assert pool.hidden
    if option == "optimal_mix":  # which cannot do without
        with pytest.raises(ConfigError, match="this regime hides it"):
            weigh(option, chain, pool, tmp_path)
        return
    weights = weigh(option, chain, pool, tmp_path)
    garbage = weigh(option, chain, with_garbage(pool), tmp_path)
    weigher = build(composed(*CHAIN, f"mitigation={option}")["mitigation"], "mitigation").weigher
    told_the_truth = isinstance(weigher, ProvenanceWeight)  # the upper bound, which says so
    assert torch.equal(weights, garbage) != told_the_truth


def test_there_are_weighers() -> None:
    assert len(WEIGHERS) >= 5
    assert not torch.equal(with_garbage(replace_hidden(2)).born, replace_hidden(2).born)


def replace_hidden(count: int) -> Pool:
    pool = Pool.real(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64), "zeros")
    return replace(pool, hidden=frozenset({"born"}))
