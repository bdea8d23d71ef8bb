from pathlib import Path

import torch
from chains import TINY, TINY_FLOW, TINY_GAUSSIAN, FinishedChain


def test_no_sample_is_ever_trained_on(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *TINY_GAUSSIAN, "regime=real")
    assert chain.train_pools == [{"real": 22}] * 4
    assert torch.equal(chain.pool(3).images, chain.parts.setting.real.images)


def test_a_closed_form_fit_is_the_same_in_all_generations_and_samples_are_new(tmp_path: Path) -> None:
    chain = FinishedChain(tmp_path, *TINY_GAUSSIAN, "regime=real")
    folders = [chain.run_dir.generation(t) for t in range(4)]
    assert len({(folder / "fitted.safetensors").read_bytes() for folder in folders}) == 1
    assert len({(folder / "kept.safetensors").read_bytes() for folder in folders}) == 4


def test_a_trained_model_takes_the_steps_of_the_other_arms(tmp_path: Path) -> None:
    chains = [FinishedChain(tmp_path / r, *TINY, *TINY_FLOW, f"regime={r}") for r in ("real", "replace")]
    steps = [[record.spent.gradient_steps for record in chain.records] for chain in chains]
    assert steps[0] == steps[1] == [12, 6, 6]
