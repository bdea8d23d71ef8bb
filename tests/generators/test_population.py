from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chains import TINY, FinishedChain, composed, parts_of
from safetensors.torch import load_file

from collapse_bench.cli.config import build
from collapse_bench.errors import ConfigError
from collapse_bench.fingerprint import fingerprint
from collapse_bench.generators.population import Population, PopulationModel
from collapse_bench.pool import Pool
from collapse_bench.samplers.population import PopulationSampler
from collapse_bench.seeding import RUN_LEVEL, Stream, isolated_rng
from collapse_bench.training import FitJob, TrainerOptions
from collapse_bench.types import ImageSpec

MEMBERS = ("vae", "flow", "ddpm")
POPULATION = ("generator=population", *(f"generator.members.{name}.network.width=16" for name in MEMBERS))
SPEC = ImageSpec(1, 4, 4, ("a", "b"))
JOB = FitJob(5, 7, TrainerOptions(num_threads=1), "generation 0")


def population(*overrides: str) -> Population:
    return build(composed(*POPULATION, *overrides)["generator"], "generator")


def sampler(*overrides: str) -> PopulationSampler:
    return build(composed(*POPULATION, *overrides)["sampler"], "sampler")


def empty_model(generator: Population) -> PopulationModel:
    with isolated_rng(0):
        return generator.empty_model(SPEC)


def pool() -> Pool:
    images = torch.randint(256, (20, *SPEC.shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Pool.real(images, torch.arange(20) % 2, "random")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> FinishedChain:
    return FinishedChain(tmp_path_factory.mktemp("population"), *TINY, *POPULATION)


def test_members_make_equal_parts_and_the_provenance_names_them(chain: FinishedChain) -> None:
    kept = chain.now(2).chain.kept(2)
    assert kept.sources == MEMBERS
    model = empty_model(chain.parts.generator)  # type: ignore[arg-type]
    assert torch.equal(kept.source, model.source_of(kept.seed))
    counts = model.source_of(torch.arange(30_000)).bincount()
    assert (counts - 10_000).abs().max() < 5 * (30_000 * (1 / 3) * (2 / 3)) ** 0.5


def test_an_image_is_the_one_that_its_member_makes_alone(chain: FinishedChain) -> None:
    now = chain.now(2)
    model, kept = now.chain.model, now.chain.kept(2)
    assert isinstance(model, PopulationModel)
    assert isinstance(chain.parts.sampler, PopulationSampler)
    for k, name in enumerate(MEMBERS):
        mine = kept.source == k
        alone, _ = chain.parts.sampler.members[name].sample(model.members[name], kept.seed[mine])
        assert torch.equal(alone, kept.images[mine]), "also after the model was stored and loaded"


def test_every_member_is_fitted_as_it_would_be_alone_on_a_stream_of_its_own() -> None:
    generator = population()
    model = empty_model(generator)
    alone = empty_model(generator).members["flow"]
    generator.fit_model(model, pool(), torch.ones(20), JOB)
    seed = Stream(JOB.seed, RUN_LEVEL, "flow").seed
    generator.members["flow"].fit_model(alone, pool(), torch.ones(20), replace(JOB, seed=seed))
    assert fingerprint(alone) == fingerprint(model.members["flow"])


def test_all_steps_and_networks_are_counted(chain: FinishedChain) -> None:
    spent = chain.records[1].spent
    assert (spent.gradient_steps, spent.networks_trained) == (3 * 6, 3)
    assert spent.network_evaluations_per_sample == 14, "one of the VAE, 20 of each other, on average"
    model = chain.now(2).chain.model
    assert isinstance(model, PopulationModel)
    assert chain.records[1].num_parameters == sum(member.num_parameters for member in model.members.values())


def test_losses_are_means_over_the_members() -> None:
    generator = population()
    model = empty_model(generator)
    images, labels = torch.zeros(3, *SPEC.shape), torch.full((3,), -1)
    with isolated_rng(1):
        losses = model.loss(images, labels)
    with isolated_rng(1):
        expected = sum(member.loss(images, labels) for member in model.members.values()) / 3
    torch.testing.assert_close(losses, expected)
    logged = generator.fit_model(model, pool(), torch.ones(20), JOB)
    assert [step for step, _ in logged] == [1, 2, 3, 4, 5]
    alone = [
        member.fit_model(
            empty_model(generator).members[name],
            pool(),
            torch.ones(20),
            replace(JOB, seed=Stream(JOB.seed, RUN_LEVEL, name).seed),
        )
        for name, member in generator.members.items()
    ]
    means = [sum(loss for _, loss in of_step) / len(alone) for of_step in zip(*alone, strict=True)]
    assert [loss for _, loss in logged] == pytest.approx(means)


def test_whoever_watches_sees_one_fit_from_the_first_step_to_the_last() -> None:
    seen: list[int] = []
    job = replace(JOB, num_steps=60, on_step=lambda step, num_steps, loss: seen.append(step))
    generator = population()
    generator.fit_model(empty_model(generator), pool(), torch.ones(20), job)
    assert seen == sorted(seen)
    assert seen[-1] == 60


def test_a_warm_start_continues_every_member(chain: FinishedChain) -> None:
    fitted = [load_file(chain.run_dir.generation(t) / "fitted.safetensors") for t in (1, 2)]
    moved = {name: (fitted[1][name] - tensor).abs().max().item() for name, tensor in fitted[0].items()}
    of_weights = [change for name, change in moved.items() if name.endswith("weight")]
    assert all(0 < change < 0.1 for change in of_weights)


def test_neon_extrapolates_every_member(tmp_path: Path) -> None:
    options = ("mitigation=neon", "mitigation.refiner.num_samples=20", "mitigation.refiner.num_steps=3")
    chain = FinishedChain(tmp_path, *TINY, *POPULATION, *options, "budget.num_generations=1")
    assert chain.records[1].spent.gradient_steps == 3 * (6 + 3)
    now = chain.now(2)
    assert isinstance(now.chain.fitted, PopulationModel)
    assert isinstance(now.chain.model, PopulationModel)
    for name, fitted in now.chain.fitted.members.items():
        assert fingerprint(fitted) != fingerprint(now.chain.model.members[name])


def test_sims_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mitigation=sims .* makes a population of"):
        parts_of(composed(*TINY, *POPULATION, "mitigation=sims"), tmp_path)


def test_what_is_said_for_all_members_adds_to_what_each_says() -> None:
    of_all = sampler("sampler.temperature=0.5", "sampler.members.flow.temperature=0.8", "sampler.truncation=2")
    assert of_all.of_member("flow").temperature == 0.4
    assert {of_all.of_member(name).truncation for name in MEMBERS} == {2}
    guided = sampler("sampler.guidance=0.3", "sampler.members.flow.guidance=0.5")
    assert [guided.of_member(name).guidance for name in MEMBERS] == [0.3, 0.8, 0.3]
    own = sampler("sampler.members.vae.truncation=3")
    assert [own.of_member(name).truncation for name in MEMBERS] == [3, None, None]


def test_members_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="only flow see the class"):
        empty_model(population("generator.members.flow.conditional=true"))
    with pytest.raises(ConfigError, match=r"members\.vae\.start=scratch and generator\.start=warm"):
        population("generator.members.vae.start=scratch")
    with pytest.raises(ConfigError, match="two generators or more"):
        Population(start="warm", members={})
    everything = population()
    with pytest.raises(ConfigError, match="is not itself a population"):
        Population(start="warm", members={"flow": everything.members["flow"], "more": everything})


def test_a_sampler_with_other_members_is_refused() -> None:
    other = sampler("~sampler.members.ddpm")
    with pytest.raises(ConfigError, match=r"members are vae, flow, ddpm and the sampler's vae, flow"):
        other.check(empty_model(population()))


def test_the_start_of_all_members_is_that_of_the_population() -> None:
    members = population("generator.start=scratch").members
    assert {member.start for member in members.values()} == {"scratch"}
