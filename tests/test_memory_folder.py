"""A memory in a folder: what is deleted leaves no trace, and bad files and full disks are said in one sentence."""

import errno
import math
import resource
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memories
from ami.memory import index, sqlite
from ami.memory.episodic import Memory
from ami.memory.moment import Moment
from ami.memory.nearest import Part
from ami.memory.retention import choose


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "m"


@pytest.fixture
def filled(folder: Path) -> list[Moment]:
    """Half sorted, and half came since."""
    made = memories.moments(100)
    with Memory.create(folder, memories.ABOUT) as memory:
        memory.append(made[:50])
        memory.sort()
        memory.append(made[50:])
    return made


def test_deleted_is_deleted(folder: Path) -> None:
    made = memories.moments(40)
    secret = replace(
        made[7],
        latent=np.full(memories.DIM, 0.123, np.float16),
        source="a secret place",
        thumbnail=memories.JPEG + b"a secret face",
    )
    with Memory.create(folder, memories.ABOUT) as memory:
        memory.append([*made[:7], secret, *made[8:]])
        memory.sort()
        traces = [b"a secret place", b"a secret face", secret.latent.tobytes()]

        def found() -> list[bytes]:
            held = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
            return [trace for trace in traces if any(trace in each for each in held)]

        assert found() == traces
        assert memory.forget([8, 999]) == 1
        assert found() == []
        assert all(each.number != 8 for each in memory.recall(secret.latent, 40))
        assert memory.check() == []


def test_the_index_is_made_anew_where_it_is_lost_or_damaged(filled, folder: Path) -> None:
    question = filled[5].latent
    with Memory.open(folder) as memory:
        before = [(each.number, each.distance) for each in memory.recall(question, 9)]
    (vectors,) = folder.glob("index/*/vectors.npy")
    held = bytearray(vectors.read_bytes())
    held[-20] ^= 1
    vectors.write_bytes(held)
    with Memory.open(folder) as memory:
        (sentence,) = memory.check()
        assert "delete that folder" in sentence
    vectors.write_bytes(held[:-40])
    with Memory.open(folder) as memory:
        assert [(each.number, each.distance) for each in memory.recall(question, 9)] == before
    shutil.rmtree(folder / "index")
    with Memory.open(folder, write=True) as memory:
        memory.append([])
        assert list(folder.glob("index/*/vectors.npy"))
        assert [(each.number, each.distance) for each in memory.recall(question, 9)] == before
        assert memory.check() == []


def test_what_is_not_a_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        Memory.open(tmp_path / "none")
    with pytest.raises(ValueError, match=r"has no memory\.sqlite"):
        Memory.open(tmp_path)
    (tmp_path / sqlite.NAME).write_text("this is no database at all")
    with pytest.raises(ValueError, match="not a SQLite database"):
        Memory.open(tmp_path)
    (tmp_path / sqlite.NAME).unlink()
    sqlite3.connect(tmp_path / sqlite.NAME).execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(ValueError, match="a database of something else"):
        Memory.open(tmp_path, write=True)
    with pytest.raises(ValueError, match="not empty"):
        Memory.create(tmp_path, memories.ABOUT)


def test_a_damaged_page_is_said_and_the_rest_stays(folder: Path) -> None:
    with Memory.create(folder, memories.ABOUT) as memory:
        memory.append([replace(each, source="x" * 300) for each in memories.moments(400)])
    path = folder / sqlite.NAME
    held = bytearray(path.read_bytes())
    flipped = bytes(held).index(b"x" * 300)
    held[flipped + 5] ^= 1
    path.write_bytes(held)
    with Memory.open(folder, write=True) as memory:
        (sentence,) = memory.check()
        number = int(sentence.split()[1])
        with pytest.raises(ValueError, match=f"moment {number} of .* is damaged"):
            memory.recall(np.zeros(memories.DIM), 400)
        memory.forget([number])
        assert memory.check() == []
        assert len(memory.recall(np.zeros(memories.DIM), 400)) == 399
    held[4096 * 5 : 4096 * 20] = bytes(range(256)) * 240
    path.write_bytes(held)
    with Memory.open(folder) as memory:
        assert memory.check()
        with pytest.raises(ValueError, match="is damaged"):
            memory.recall(np.zeros(memories.DIM), 400)


def test_a_full_disk_loses_nothing(folder: Path) -> None:
    with Memory.create(folder, memories.ABOUT) as memory:
        memory.append(memories.moments(100))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Memory.open(folder, write=True) as memory:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
        try:
            refused = 0
            for seed in range(40):
                before = len(memory)
                try:
                    memory.append(memories.moments(100, seed))
                except OSError as error:
                    refused += error.errno == errno.ENOSPC
                    assert len(memory) == before
            assert refused > 10
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert len(memory) == before
        memory.append(memories.moments(1))
    with Memory.open(folder) as memory:
        assert len(memory) == before + 1
        assert memory.check() == []


STREAMS = {
    "ever more surprising": lambda k, rng: (rng.normal(size=memories.DIM), float(k)),
    "ever less surprising": lambda k, rng: (rng.normal(size=memories.DIM), -float(k)),
    "a flood of one thing": lambda k, rng: (np.zeros(memories.DIM) if k > 5 else np.eye(memories.DIM)[k] * 9, None),
    "drifting away": lambda k, rng: (np.full(memories.DIM, k / 8), None),
    "two by turns, ever farther": lambda k, rng: (np.full(memories.DIM, k / 8 * (-1) ** k), None),
}


@pytest.mark.parametrize("stream", STREAMS)
def test_what_is_promised_holds_over_a_stream_that_was_made_to_break_it(folder: Path, stream: str) -> None:
    """Pruned again and again: the most surprising ever seen is there, and something near to all that was ever seen."""
    rng, far = np.random.default_rng(0), 0.0
    made = [
        Moment(latent.astype(np.float16), float(k), surprise=felt)
        for k, (latent, felt) in enumerate(STREAMS[stream](k, rng) for k in range(60))
    ]
    with Memory.create(folder, replace(memories.ABOUT, limit=16, surprising=0.25)) as memory:
        for first in range(0, len(made), 5):
            came = [*(each for _, each in memory.moments()), *made[first : first + 5]]
            if len(came) > 16:  # 14 of them will stay, and what was nearest to one that goes is no farther than this
                felt = np.array([math.nan if each.surprise is None else each.surprise for each in came])
                vectors = np.stack([each.latent for each in came])
                far += choose(vectors, felt, 14, 0.25, torch.Generator().manual_seed(0)).radius
            memory.append(made[first : first + 5])
        held = dict(memory.moments())
    assert len(held) <= 16
    ranked = sorted(((m.surprise, k + 1) for k, m in enumerate(made) if m.surprise is not None), reverse=True)
    assert {number for _, number in ranked[: int(14 * 0.25)]} <= set(held)
    stay = np.stack([each.latent for each in held.values()]).astype(float)
    assert all(np.linalg.norm(stay - each.latent.astype(float), axis=1).min() <= far + 1e-2 for each in made)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.one_of(st.integers(1, 40), st.just("forget"), st.just("sort")), min_size=6, max_size=14))
def test_parts_grow_and_shrink_and_lose_nothing(steps: list, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng, held = np.random.default_rng(0), {}
    folder = tmp_path_factory.mktemp("grown") / "m"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_DUE", 30)
        with Memory.create(folder, memories.ABOUT) as writer, Memory.open(folder) as reader:
            for k, step in enumerate(steps):
                if step == "sort":
                    writer.sort()
                elif step == "forget":
                    going = [number for number in held if rng.random() < 0.3]
                    assert writer.forget(going) == len(going)
                    held = {number: each for number, each in held.items() if number not in going}
                else:
                    made = memories.moments(step, seed=k)
                    held |= dict(zip(writer.append(made), made, strict=True))
                rows = reader.rows()
                assert {n: v.tobytes() for n, v in zip(rows.numbers.tolist(), rows.vectors, strict=True)} == {
                    n: each.latent.tobytes() for n, each in held.items()
                }
            assert reader.check() == []


def test_each_row_is_written_anew_a_few_times_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_DUE", 10)
    built = []
    monkeypatch.setattr(index.Part, "build", lambda rows, generator: built.append(len(rows)) or Part(rows))
    with Memory.create(folder, memories.ABOUT) as memory:
        for seed in range(40):
            memory.append(memories.moments(11, seed))
    assert sum(built) <= 440 * (1 + math.log2(40))
    assert len(list((folder / "index").iterdir())) <= 1 + math.log2(40)
