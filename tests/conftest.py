import os
import zlib
from pathlib import Path

# Before torch is loaded, and for processes that tests start: threads that wait for each other and spin take the time of
# the tests beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
import yaml

torch.set_num_threads(1)  # also for fixtures of modules, which come before those of functions

# Hydra and OmegaConf read with the loader in Python, some fifteen files per configuration, and tests compose hundreds.
yaml.SafeLoader = yaml.CSafeLoader  # pyright: ignore[reportAttributeAccessIssue]

FEW_AND_LONG = ("test_notebooks", "test_readme", "test_results_page", "test_launchers", "test_site", "test_shared_runs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with few and long tests go first, so that no process is left with one while the others have nothing."""
    items.sort(key=lambda item: item.path.stem not in FEW_AND_LONG)


@pytest.fixture(autouse=True)
def _alike_in_any_order(request: pytest.FixtureRequest) -> None:
    """Each test starts with a random state of its own and one thread, whatever the tests before it have left.

    Two threads each in two busy processes are slower than one, and sums depend on the number of threads.
    """
    torch.set_num_threads(1)
    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data for tests; tests that ask for it are skipped where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("COLLAPSE_BENCH_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data: looked for {folder}; name a folder in COLLAPSE_BENCH_DATA or make {beside}")
    return folder
