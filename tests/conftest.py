"""What every test may use."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    # Two OpenMP threads beside a busy neighbour can be a hundred times slower than one.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings; tests that need them are skipped where they are not at hand."""
    folder = Path(os.environ.get("AMI_SHARED_DATA", "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder} (set AMI_SHARED_DATA)")
    return folder
