from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chains import TINY, TINY_FLOW, TINY_OPTION, FinishedChain, composed, opened_run_dir, parts_of
from curating import Bench, noise

from collapse_bench.errors import ConfigError
from collapse_bench.loop import run_generations
from collapse_bench.mitigations.discriminator import Discriminator
from collapse_bench.mitigations.selection import highest_of_each_group
from collapse_bench.mitigations.verifier import Verifier
from collapse_bench.training import Optimisation

DISCRIMINATOR = Discriminator(
    width=8, num_blocks=1, num_steps=40, optimisation=Optimisation(batch_size=16, learning_rate=3e-3)
)


def curator(candidates_per_kept: float = 4.0, num_real: int | None = None, num_steps: int = 40) -> Verifier:
    discriminator = replace(DISCRIMINATOR, num_steps=num_steps)
    return Verifier(candidates_per_kept=candidates_per_kept, discriminator=discriminator, num_real=num_real)


def half_bright(count: int = 40) -> torch.Tensor:
    """Dark noise, every fourth image bright."""
    images = noise(count) // 4
    images[::4] += 190
    return images


def test_the_best_of_each_class_by_hand() -> None:
    scores = torch.tensor([0.1, 0.9, 0.8, 0.7, 0.2, 0.3])
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    assert sorted(highest_of_each_group(scores, labels, 3).tolist()) == [1, 2, 5]


def test_it_keeps_what_looks_real(tmp_path: Path) -> None:
    bench = Bench(tmp_path, half_bright(), real=noise(40, seed=1) // 4 + 190)
    assert bench.kept(curator(), 10) == list(range(0, 40, 4))


def test_every_class_keeps_its_share(tmp_path: Path) -> None:
    labels = [0, 1, 1, 1] * 10  # only class 0 looks real
    bench = Bench(tmp_path, half_bright(), labels, real=noise(40, seed=1) // 4 + 190)
    kept = bench.curate(curator(num_steps=5), 8)
    assert kept.labels.bincount().tolist() == [2, 6]


def test_without_classes_it_keeps_the_best_of_all_by_name(tmp_path: Path) -> None:
    labels = [0, 1, 1, 1] * 10  # only class 0 looks real
    bench = Bench(tmp_path, half_bright(), labels, real=noise(40, seed=1) // 4 + 190)
    assert set(bench.curate(replace(curator(), per_class=False), 8).labels.tolist()) == {0}


def test_it_judges_every_generation_alike_also_where_nothing_is_stored(tmp_path: Path) -> None:
    """At generation 0 the model at hand is the first one; later, and after a resume, it comes from the chain."""
    first = Bench(tmp_path, half_bright(), store=False)
    kept = first.kept(curator(num_steps=3), 10)
    later = Bench(tmp_path, half_bright(), generation=2, first=first.model, store=False)
    assert later.kept(curator(num_steps=3), 10) == kept
    other = Bench(tmp_path, half_bright(), generation=2, first=Bench(tmp_path, noise(40, seed=5)).model, store=False)
    assert other.kept(curator(num_steps=3), 10) != kept


@pytest.mark.slow
@pytest.mark.parametrize("name", ["verifier", "[verifier,condition_drop]"])
def test_a_resumed_run_has_the_records_of_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    """Also where steering changes the recipe of the first model, which is read from the disk."""
    cell = (f"mitigation={name}", *TINY_OPTION["verifier"], *TINY_OPTION["condition_drop"])
    records = {}
    for name, stops in (("whole", [2]), ("resumed", [0, 2])):
        for num_generations in stops:
            changes = (*cell, f"budget.num_generations={num_generations}")
            parts = parts_of(composed(*TINY, *TINY_FLOW, *changes), tmp_path / name / f"store{num_generations}")
            with opened_run_dir(tmp_path / name / "run") as run_dir:
                records[name] = [record.deterministic for record in run_generations(parts, 0, run_dir)]
    assert len(records["whole"]) == 3
    assert records["resumed"] == records["whole"]


def test_with_no_more_candidates_than_needed_it_is_the_control(tmp_path: Path) -> None:
    Bench(tmp_path, half_bright()).assert_equals_control(curator(candidates_per_kept=1, num_steps=2), 20)


def test_what_it_costs_and_sees_is_metered_at_the_first_generation(tmp_path: Path) -> None:
    bench = Bench(tmp_path, half_bright())
    for _ in range(2):  # the second time it comes from the store
        bench.curate(curator(num_real=7, num_steps=3), 10)
        spent = bench.now.spent
        assert spent.real_images_seen["verifier"] == 7
        assert (spent.gradient_steps, spent.networks_trained, spent.other_samples) == (3, 1, 7)
        assert spent.candidates == 40
        assert spent.judging_evaluations == 40
    assert spent.reused == ("verifier",)


def test_one_verifier_judges_a_chain_whose_sampling_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    fit = Discriminator.fit
    monkeypatch.setattr(Discriminator, "fit", lambda self, *args: fits.append(self) or fit(self, *args))
    steered = ("mitigation=[verifier,annealed_truncation]", "mitigation.steering.num_generations=2")
    chain = FinishedChain(tmp_path, *TINY, *TINY_FLOW, *steered, *TINY_OPTION["verifier"])
    assert len(fits) == 1
    assert [record.spent.networks_trained for record in chain.records] == [2, 1, 1]
    assert [record.spent.other_samples for record in chain.records] == [64, 0, 0]


def test_more_real_images_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="looks at 41 real images, and 40"):
        curator(num_real=41).check(Bench(tmp_path, half_bright()).setting)
    with pytest.raises(ConfigError, match="width"):
        replace(DISCRIMINATOR, width=7)
    with pytest.raises(ConfigError, match="num_steps"):
        replace(DISCRIMINATOR, num_steps=0)
