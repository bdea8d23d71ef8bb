from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from curating import Bench, points
from torch import Tensor

from collapse_bench.now import Now
from collapse_bench.pool import Pool
from collapse_bench.records import Record
from collapse_bench.training import FitJob


def learn(now: Now, decides: int) -> dict[str, Tensor]:
    def build(pool: Pool, job: FitJob) -> dict[str, Tensor]:
        return {"images": pool.images}

    return now.artefact("thing", now.setting.real, build, decides)


def after(now: Now, generation: int) -> Now:
    """A generation whose predecessor has spent what ``now`` has."""
    record = Record(generation - 1, 0, (), {}, {}, "none", 0, (), "", now.spent)
    return Now(generation, 0, now.setting, replace(now.chain, records=(record,)))


def test_what_is_learnt_once_cannot_become_another_thing(tmp_path: Path) -> None:
    now = Bench(tmp_path, points(1, 2)).now
    for same in (now, now, after(now, 1)):
        learn(same, 0)
    for other in (now, after(now, 1)):
        with pytest.raises(RuntimeError, match="'thing' is learnt once for the whole chain"):
            learn(other, 1)


def test_a_generation_that_is_looked_at_again_may_learn_another_thing(tmp_path: Path) -> None:
    now = Bench(tmp_path, points(1, 2)).now
    learn(now, 0)
    again = Now(0, 0, now.setting, after(now, 1).chain)
    learn(again, 1)
    assert again.spent.artefact_keys != now.spent.artefact_keys


def test_a_generation_on_a_gpu_says_what_its_own_tensors_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = Bench(tmp_path, points(1, 2)).now
    assert now.spent.peak_device_memory_mb == 0
    taken = {"bytes": 7 * 2**20}  # by the generation before
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: taken.update(bytes=0))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: taken["bytes"])
    on_gpu = replace(now.setting, trainer=SimpleNamespace(device=torch.device("cuda")))  # type: ignore[arg-type]
    later = Now(1, 0, on_gpu, now.chain)
    assert later.spent.peak_device_memory_mb == 0
    taken["bytes"] = 3 * 2**20 + 1
    assert later.spent.peak_device_memory_mb == 3
