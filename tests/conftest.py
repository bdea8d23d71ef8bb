import os
from pathlib import Path

import pytest
import torch

# Two threads each in two busy processes are slower than one, and sums depend on the number of threads.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data for tests; tests that ask for it are skipped where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("COLLAPSE_BENCH_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data: looked for {folder}; name a folder in COLLAPSE_BENCH_DATA or make {beside}")
    return folder
