"""Two mitigations that fill different slots of one chain: each does what it does alone, once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from chains import TINY, TINY_FLOW, TINY_OPTION, FinishedChain, composed, opened_run_dir, parts_of

import collapse_bench
from collapse_bench.loop import run_generations
from collapse_bench.mitigations.discriminator import Discriminator
from collapse_bench.pool import Pool
from collapse_bench.testing import assert_equal_pools

SMALL = (
    *(override for override in TINY if not override.startswith("encoder.")),
    *(*TINY_FLOW, "generator.conditional=true", "encoder=pixels", "metrics=features", "regime=augment"),
)
CHEAP = {**TINY_OPTION, "verifier": (*TINY_OPTION["verifier"], "mitigation.curator.candidates_per_kept=2")}


@dataclass(frozen=True)
class Pair:
    """Two options of the group mitigation, and the overrides with which each of them does nothing."""

    first: str
    second: str
    without_first: tuple[str, ...]
    without_second: tuple[str, ...]
    learnt: tuple[str, ...]
    """What is learnt in three generations, once each."""

    def __str__(self) -> str:
        return f"{self.first}+{self.second}"

    @property
    def overrides(self) -> tuple[str, ...]:
        return (*SMALL, f"mitigation=[{self.first},{self.second}]", *CHEAP.get(self.first, ()), *CHEAP[self.second])

    def alone(self, option: str) -> tuple[str, ...]:
        return (*SMALL, f"mitigation={option}", *CHEAP.get(option, ()))


STEERED = Pair(  # steering and curator
    "annealed_temperature",
    "verifier",
    without_first=("mitigation.steering.first=1",),
    without_second=("mitigation.curator.candidates_per_kept=1",),
    learnt=("verifier",),
)
VERIFIED = Pair(  # refiner and curator
    "neon",
    "verifier",
    without_first=("mitigation.refiner.w=0",),
    without_second=("mitigation.curator.candidates_per_kept=1",),
    learnt=("verifier",),
)
GATED = Pair(  # refiner and weigher
    "sims",
    "time_gate",
    without_first=("mitigation.refiner.omega=0",),
    without_second=("mitigation.weigher.tolerance=0.5",),
    learnt=("time_gate_1", "time_gate_2"),
)
MARKED = Pair(  # weigher with curator, and refiner
    "watermark",
    "neon",
    without_first=("mitigation.curator.strength=0", "mitigation.weigher.weight=1"),
    without_second=("mitigation.refiner.w=0",),
    learnt=("watermark_0_0.4",),
)
PAIRS = (STEERED, VERIFIED, GATED, MARKED)


class Whole(NamedTuple):
    """An uninterrupted chain with a pair, and how often a discriminator was trained meanwhile."""

    pair: Pair
    chain: FinishedChain
    num_trained: int


@pytest.fixture(scope="module", params=PAIRS, ids=str)
def whole(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    trained = []
    fit = Discriminator.fit

    def fit_and_count(self: Discriminator, *arguments: Any) -> Any:
        trained.append(arguments)
        return fit(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Discriminator, "fit", fit_and_count)
        chain = FinishedChain(tmp_path_factory.mktemp("whole"), *request.param.overrides)
    return Whole(request.param, chain, len(trained))


def records_of(folder: Path, store: str, *overrides: str) -> list[dict[str, Any]]:
    """The records of a chain in ``folder / "run"``, which goes on where there is one; nothing is measured."""
    parts = parts_of({**composed(*overrides), "metrics": {}}, folder / store)
    with opened_run_dir(folder / "run") as run_dir:
        return [record.deterministic for record in run_generations(parts, 0, run_dir, "all")]


def test_what_is_learnt_once_is_metered_once(whole: Whole) -> None:
    metered = [name for record in whole.chain.records for name in record.spent.artefacts]
    assert metered == list(whole.pair.learnt)


def test_what_is_learnt_once_is_trained_once(whole: Whole) -> None:
    assert whole.num_trained == sum(not name.startswith("watermark") for name in whole.pair.learnt)


def test_a_chain_that_goes_on_with_an_empty_store_has_the_records_of_an_uninterrupted_one(
    whole: Whole, tmp_path: Path
) -> None:
    records_of(tmp_path, "first_store", *whole.pair.overrides, "budget.num_generations=1")
    resumed = records_of(tmp_path, "second_store", *whole.pair.overrides)
    assert resumed == [record.deterministic for record in whole.chain.records]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_where_one_of_them_does_nothing_the_chain_is_that_of_the_other(pair: Pair, tmp_path: Path) -> None:
    for nothing, other in ((pair.without_first, pair.second), (pair.without_second, pair.first)):
        folders = {"pair": (*pair.overrides, *nothing), "alone": pair.alone(other)}
        chains = [
            FinishedChain(tmp_path / other / name, *overrides, "budget.num_generations=1", store=tmp_path / "store")
            for name, overrides in folders.items()
        ]
        for t in range(2):
            models = [(chain.run_dir.generation(t) / "fitted.safetensors").read_bytes() for chain in chains]
            assert models[0] == models[1], f"generation {t}: another model than with {other} alone"
            assert_equal_pools(*(chain.now(1).chain.kept(t) for chain in chains))


def test_a_verifier_of_one_pair_of_networks_is_not_that_of_another_contrast(tmp_path: Path) -> None:
    sims = (*SMALL, "mitigation=[sims,verifier]", *CHEAP["sims"], *CHEAP["verifier"])
    strong = (*sims, "mitigation.refiner.omega=3", "budget.num_generations=0")
    expected = FinishedChain(tmp_path / "alone", *strong).now(0).chain.kept(0)
    records_of(tmp_path / "weak", "../store", *sims, "mitigation.refiner.omega=0.1", "budget.num_generations=0")
    records_of(tmp_path / "strong", "../store", *strong)
    found = Pool.load(tmp_path / "strong" / "run" / "gen_000" / "kept.safetensors")
    assert_equal_pools(found, expected)


def test_a_run_is_named_after_both_and_its_records_show_both(tmp_path: Path) -> None:
    folders = (f"cache.root={tmp_path / 'cache'}", f"runs_dir={tmp_path / 'runs'}")
    run = collapse_bench.run(*VERIFIED.overrides, "budget.num_generations=1", *folders)
    assert run.choices["mitigation"] == "neon+verifier"
    assert "neon+verifier" in run.path.name
    for record in run.records:
        assert record.spent.candidates == 2 * record.spent.kept, "those of the verifier"
        assert record.spent.networks_trained >= 2, "the model and Neon's copy of it"
    assert run.records[0].spent.artefacts == ("verifier",)
