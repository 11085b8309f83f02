"""What was remembered is found, under its bounds and no others; what is deleted is gone; nothing is lost to a kill."""

import errno
import math
import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memories
from ami.memory import nearest, retention, sqlite
from ami.memory.episodic import About, Memory
from ami.memory.exchange import bring_in, export
from ami.memory.moment import Moment, Where
from ami.memory.nearest import Part, Rows
from ami.memory.perceiving import descriptor, perceive_stills
from ami.memory.retention import choose
from ami.models.baselines import Pixels
from ami.types import Embodiment, Latent

DIM = memories.DIM
ABOUT = About("c0ffee", "film", DIM)
JPEG = b"\xff\xd8\xff"


def moments(count: int, seed: int = 0, dim: int = DIM, spread: int = 5) -> list[Moment]:
    """Few places, times and episodes, so that bounds fall on them."""
    rng = np.random.default_rng(seed)
    return [
        Moment(
            latent=rng.normal(size=dim).astype(np.float16),
            time=float(rng.integers(spread)),
            place=tuple(rng.integers(3, size=3).astype(float).tolist()) if rng.random() < 0.7 else None,
            episode=f"e{rng.integers(4)}",
            source=f"s{k}",
            surprise=float(rng.random()) if rng.random() < 0.5 else None,
            thumbnail=JPEG + bytes([k % 256]) if rng.random() < 0.5 else None,
        )
        for k in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "m"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Moment]]:
    """A memory with a sorted part, with two that came since, and what is in it."""
    folder, made = tmp_path_factory.mktemp("filled") / "m", moments(300)
    with Memory.create(folder, ABOUT) as memory:
        memory.append(made[:200])
        memory.sort()
        memory.append(made[200:290])
        memory.append(made[290:])
    return folder, made


def same(one: Moment, other: Moment) -> bool:
    facts = [(m.time, m.place, m.episode, m.source, m.surprise, m.thumbnail) for m in (one, other)]
    return facts[0] == facts[1] and np.array_equal(one.latent, other.latent)


number = st.integers(-1, 5).map(float)
bounds = st.builds(
    Where,
    since=st.none() | number,
    until=st.none() | number,
    near=st.none() | st.tuples(number, number, number, st.sampled_from([0.0, 1.0, 1.5, 9.0])),
    episodes=st.none() | st.lists(st.sampled_from(["e0", "e1", "e2", "nobody"]), max_size=3).map(tuple),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=bounds, asked=st.integers(0, 10_000), top=st.integers(1, 40), exact=st.booleans())
def test_recall_is_brute_force_under_bounds(filled, where: Where, asked: int, top: int, exact: bool) -> None:
    folder, made = filled
    question = np.random.default_rng(asked).normal(size=DIM)

    def allowed(each: Moment) -> bool:
        far = where.near is not None and (each.place is None or math.dist(each.place, where.near[:3]) > where.near[3])
        return (
            not far
            and (where.since is None or each.time >= where.since)
            and (where.until is None or each.time <= where.until)
            and (where.episodes is None or each.episode in where.episodes)
        )

    true = sorted(
        (float(np.linalg.norm(each.latent.astype(float) - question)), k + 1)
        for k, each in enumerate(made)
        if allowed(each)
    )
    with Memory.open(folder) as memory:
        found = memory.recall(question, top, where, exact=exact)
        assert sorted(memory.rows(where).numbers.tolist()) == sorted(k for _, k in true)
    assert [each.number for each in found] == [k for _, k in true[:top]]
    assert [each.distance for each in found] == pytest.approx([d for d, _ in true[:top]], rel=1e-5)
    assert all(same(each.moment, made[each.number - 1]) for each in found)


def test_latents_that_share_a_large_mean_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    vectors = (100 + rng.normal(size=(5000, 64))).astype(np.float16)
    question = (100 + rng.normal(size=64)).astype(np.float32)
    true = np.linalg.norm(vectors.astype(float) - question, axis=1).argsort()[:10]
    found = nearest.nearest(vectors, torch.from_numpy(question)[None], 10)[0]
    assert found.tolist() == true.tolist()


@pytest.mark.parametrize("kind", ["everywhere", "on a surface"])
def test_a_sketch_finds_nearly_all_and_never_what_is_not_allowed(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    count, dim = 20_000, 31  # odd: the last piece is half empty
    vectors = rng.normal(size=(count + 20, dim))
    if kind == "on a surface":
        vectors = np.sin(rng.normal(size=(count + 20, 3)) @ rng.normal(size=(3, dim)))
    rows = Rows(
        np.arange(count),
        np.zeros(count),
        np.zeros((count, 3)),
        np.zeros((count, 3)),
        np.zeros(count, np.int32),
        vectors[:count].astype("f2"),
    )
    part = Part.build(rows, torch.Generator().manual_seed(0))
    assert part.sketch is not None
    part.write(tmp_path)
    again = Part.read(tmp_path)
    for allowed in (None, rng.random(count) < 0.5, np.arange(count) < 5000, vectors[:count, 0] > 0.2):
        hits = []
        for question in vectors[count:].astype(np.float32):
            exact = part.candidates(question, 10, allowed, exact=True)
            found = part.candidates(question, 10, allowed, exact=False)
            assert allowed is None or allowed[found].all()
            assert np.array_equal(found, again.candidates(question, 10, allowed, exact=False))
            hits.append(len(set(exact[:10].tolist()) & set(found.tolist())) / 10)
        assert np.mean(hits) >= 0.95


def test_everything_is_searched_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(nearest, "_FEW", 10)
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float16)
    rows = Rows(np.arange(50), np.zeros(50), np.zeros((50, 3)), np.zeros((50, 3)), np.zeros(50, np.int32), vectors)
    part = Part.build(rows, torch.Generator())
    assert part.sketch is None
    assert part.candidates(vectors[7].astype(np.float32), 1, None, exact=False).tolist() == [7]


def test_a_reader_sees_what_is_written_while_it_is_open(folder: Path) -> None:
    made = moments(60)
    with Memory.create(folder, ABOUT) as writer, Memory.open(folder) as reader:
        for change in (
            lambda: writer.append(made[:20]),
            lambda: writer.append(made[20:40]),
            writer.sort,
            lambda: writer.append(made[40:]),
            lambda: writer.forget([3, 30]),
            lambda: writer.prune(25),
        ):
            change()
            assert len(reader.recall(made[50].latent, 100)) == len(writer)
        assert reader.check() == []
        with pytest.raises(ValueError, match="opened for reading"):
            reader.append(made[:1])


def test_numbers_are_never_given_twice(folder: Path) -> None:
    with Memory.create(folder, ABOUT) as memory:
        assert memory.append(moments(3)) == [1, 2, 3]
        memory.forget([3])
        assert memory.append(moments(1)) == [4]


def test_deleted_is_deleted(folder: Path) -> None:
    made = moments(40)
    secret = replace(
        made[7], latent=np.full(DIM, 0.123, np.float16), source="a secret place", thumbnail=JPEG + b"a secret face"
    )
    with Memory.create(folder, ABOUT) as memory:
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
    shutil.copytree(filled[0], folder)
    question = filled[1][5].latent
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
        memory.sort()
        assert [(each.number, each.distance) for each in memory.recall(question, 9)] == before
        assert memory.check() == []


# Retention


def radius(points: np.ndarray, chosen: list[int]) -> float:
    return float(np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(1).max())


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(-8, 8), st.integers(-8, 8)), min_size=4, max_size=9),
    keep=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_retention_keeps_its_promises(points, keep: int, share: float, seed: int) -> None:
    vectors, rng = np.array(points, np.float16), np.random.default_rng(seed)
    surprise = np.where(rng.random(len(points)) < 0.3, np.nan, rng.integers(0, 5, len(points)).astype(float))
    keep = min(keep, len(points) - 1)
    kept = choose(vectors, surprise, keep, share, torch.Generator().manual_seed(0))
    stay = np.flatnonzero(kept.rows).tolist()
    assert len(stay) == keep
    sure = int(keep * share)
    ranked = sorted((value for value in surprise.tolist() if not math.isnan(value)), reverse=True)
    stays = sorted((value for value in surprise[kept.rows].tolist() if not math.isnan(value)), reverse=True)
    assert stays[:sure][: len(ranked)] == ranked[:sure]
    exact = vectors.astype(float)
    assert radius(exact, stay) <= kept.radius + 1e-3
    if free := keep - sure:
        best = min(radius(exact, list(some)) for some in combinations(range(len(points)), free))
        assert kept.radius <= 2 * best + 1e-3


@pytest.mark.parametrize("worth", [2**30, 0])  # all at once, and in groups
def test_what_was_rarely_seen_survives_a_flood(worth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_WORTH", worth)
    monkeypatch.setattr(retention, "_TOGETHER", 256)
    rng = np.random.default_rng(0)
    flood = rng.normal(size=(3000, 8)) * 0.1
    rare = rng.normal(size=(5, 8)) * 20
    where = rng.choice(3005, 5, replace=False)
    vectors = np.insert(flood, np.sort(where) - np.arange(5), rare, axis=0).astype(np.float16)
    surprise = np.zeros(3005)
    loud = rng.choice(3005, 20, replace=False)
    surprise[loud] = 1 + rng.random(20)
    kept = choose(vectors, surprise, 200, 0.1, torch.Generator().manual_seed(0))
    assert kept.rows.sum() == 200
    assert kept.rows[loud].all()
    assert kept.rows[np.linalg.norm(vectors.astype(float), axis=1) > 5].sum() == 5
    assert radius(vectors.astype(float), np.flatnonzero(kept.rows).tolist()) <= kept.radius * (1 + 1e-3)
    assert kept.radius < 0.6


def test_a_limit_is_held_after_every_append(folder: Path) -> None:
    strange = Moment(np.full(DIM, 9.0), 0.0, episode="once")
    with Memory.create(folder, replace(ABOUT, limit=40)) as memory:
        memory.append([strange])
        for seed in range(12):
            memory.append(moments(9, seed))
            assert len(memory) <= 40
        assert memory.recall(strange.latent, 1)[0].moment.episode == "once"
        assert set(memory.episodes()) == {each.episode for _, each in memory.moments()}


def test_of_copies_the_latest_stays(folder: Path) -> None:
    with Memory.create(folder, ABOUT) as memory:
        memory.append([Moment(np.ones(DIM), float(k)) for k in range(50)] + moments(5))
        memory.prune(6)
        (found,) = memory.recall(np.ones(DIM), 1)
        assert found.moment.time == 49


# Crashes, other writers, bad files


def test_no_acknowledged_moment_is_lost_to_kills(folder: Path) -> None:
    Memory.create(folder, ABOUT).close()
    rng, acknowledged, context = np.random.default_rng(0), 0, multiprocessing.get_context("fork")
    for _ in range(int(os.environ.get("AMI_KILLS", "20"))):
        ours, theirs = context.Pipe(duplex=False)
        writer = context.Process(target=memories.write, args=(folder, theirs))
        writer.start()
        theirs.close()
        acknowledged = ours.recv()
        time.sleep(rng.random() * 0.05)
        writer.kill()
        with suppress(EOFError):
            while True:
                acknowledged = ours.recv()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        began = time.process_time()
        with Memory.open(folder, write=True) as memory:
            assert time.process_time() - began < 1
            assert len(memory) >= acknowledged
            assert memory.check() == []
    with Memory.open(folder) as memory:
        for k, (_, each) in enumerate(memory.moments()):
            assert same(each, memories.moment(k))
        assert k + 1 >= acknowledged
        assert memory.recall(memories.moment(7).latent, 1)[0].number == 8


def test_the_second_writer_is_refused(folder: Path) -> None:
    with Memory.create(folder, ABOUT) as memory:
        with pytest.raises(ValueError, match=rf"being written by another \(process {os.getpid()}\)"):
            Memory.open(folder, write=True)
        memory.append(moments(2))
    with Memory.open(folder, write=True) as memory:
        assert len(memory) == 2


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
        Memory.create(tmp_path, ABOUT)


def test_schemas_go_up_and_never_down(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Memory.create(folder, ABOUT) as memory:
        memory.append(moments(3))
    monkeypatch.setattr(sqlite, "MIGRATIONS", (*sqlite.MIGRATIONS, "ALTER TABLE moments ADD COLUMN smell TEXT"))
    with pytest.raises(ValueError, match="any verb that writes to it brings it here"):
        Memory.open(folder)
    with Memory.open(folder, write=True) as memory:
        assert len(memory.recall(np.zeros(DIM), 5)) == 3
    with Memory.open(folder) as memory:
        assert memory.check() == []
    monkeypatch.undo()
    for write in (False, True):
        with pytest.raises(ValueError, match="has schema 2, this AMI reads up to 1; install a newer AMI"):
            Memory.open(folder, write=write)


def test_a_damaged_page_is_said_and_the_rest_stays(folder: Path) -> None:
    with Memory.create(folder, ABOUT) as memory:
        memory.append([replace(each, source="x" * 300) for each in moments(400)])
    path = folder / sqlite.NAME
    held = bytearray(path.read_bytes())
    flipped = bytes(held).index(b"x" * 300)
    held[flipped + 5] ^= 1
    path.write_bytes(held)
    with Memory.open(folder, write=True) as memory:
        (sentence,) = memory.check()
        number = int(sentence.split()[1])
        with pytest.raises(ValueError, match=f"moment {number} of .* is damaged"):
            memory.recall(np.zeros(DIM), 400)
        memory.forget([number])
        assert memory.check() == []
        assert len(memory.recall(np.zeros(DIM), 400)) == 399
    held[4096 * 5 : 4096 * 20] = bytes(range(256)) * 240
    path.write_bytes(held)
    with Memory.open(folder) as memory:
        assert memory.check()
        with pytest.raises(ValueError, match="is damaged"):
            memory.recall(np.zeros(DIM), 400)


def test_a_full_disk_loses_nothing(folder: Path) -> None:
    with Memory.create(folder, ABOUT) as memory:
        memory.append(moments(100))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Memory.open(folder, write=True) as memory:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
        try:
            refused = 0
            for seed in range(40):
                before = len(memory)
                try:
                    memory.append(moments(100, seed))
                except OSError as error:
                    refused += error.errno == errno.ENOSPC
                    assert len(memory) == before
            assert refused > 10
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert len(memory) == before
        memory.append(moments(1))
    with Memory.open(folder) as memory:
        assert len(memory) == before + 1
        assert memory.check() == []


def test_what_does_not_fit_is_refused(filled) -> None:
    folder, made = filled
    with Memory.open(folder, write=True) as memory:
        with pytest.raises(ValueError, match=f"remembers {DIM} of each"):
            memory.append([*made[:2], Moment(np.zeros(3), 0.0)])
        with pytest.raises(ValueError, match=f"remembers {DIM} numbers of each"):
            memory.recall(np.zeros(3))
        with pytest.raises(ValueError, match="finite numbers"):
            memory.recall(np.full(DIM, np.nan))
        with pytest.raises(ValueError, match=r"reembed, which looks at its thumbnails again"):
            memory.refuse_other("decaf")
        memory.refuse_other("c0ffee")
        assert len(memory) == len(made)
    for wrong in ({"latent": np.full(2, np.inf)}, {"latent": np.zeros((2, 2))}, {"latent": np.full(4, 60000.0)}):
        with pytest.raises(ValueError, match="latent to remember"):
            Moment(**{"time": 0.0, **wrong})
    with pytest.raises(ValueError, match="must be finite"):
        Moment(np.zeros(2), math.nan)
    with pytest.raises(ValueError, match="PNG or JPEG"):
        Moment(np.zeros(2), 0.0, thumbnail=b"GIF89a")
    with pytest.raises(ValueError, match="bounds nothing"):
        Where(near=(0, 0, 0, -1))


# Out, in, and over to another checkpoint


def test_export_and_import_give_the_same_memory(filled, tmp_path: Path) -> None:
    folder, made = filled
    with Memory.open(folder) as memory:
        assert export(memory, tmp_path / "x.npz") == len(made)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as held:
        assert held["latents"].shape == (len(made), DIM)
    assert bring_in(tmp_path / "x.npz", tmp_path / "again") == len(made)
    with Memory.open(tmp_path / "again") as memory:
        assert memory.about == ABOUT
        assert all(same(each, made[k - 1]) for k, each in memory.moments())
    written = bytearray((tmp_path / "x.npz").read_bytes())
    written[2000] ^= 255
    (tmp_path / "y.npz").write_bytes(written)
    with pytest.raises(ValueError, match="is not the export of a memory, or is damaged"):
        bring_in(tmp_path / "y.npz", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_another_checkpoint_looks_at_the_thumbnails_again(folder: Path) -> None:
    made = [replace(each, thumbnail=JPEG + bytes([k])) for k, each in enumerate(moments(30))]
    other = About("decaf", "film", 3)

    def perceive(thumbnails: list[bytes]) -> np.ndarray:
        return np.array([[each[-1], 0, 1] for each in thumbnails], np.float32)

    with Memory.create(folder, ABOUT) as memory:
        memory.append([*made, replace(made[0], thumbnail=None)])
        with pytest.raises(ValueError, match=r"1 moments of .* have no thumbnail"):
            memory.reembed(other, perceive)
        memory.forget(memory.blind())
        with pytest.raises(ValueError, match="were due"):
            memory.reembed(other, lambda thumbnails: perceive(thumbnails)[:, :2])
        assert memory.about == ABOUT
        memory.reembed(other, perceive)
        assert memory.about == other
        assert memory.recall(np.array([17, 0, 1]), 1)[0].number == 18
        assert memory.check() == []


def test_a_picture_is_perceived_alone_and_still() -> None:
    model = Pixels({"film": Embodiment("film", 0.1)}, side=2).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), dtype=np.uint8)
    together = perceive_stills(model, "film", pictures)
    assert together.shape == (70, 12)
    assert np.array_equal(together[69:], perceive_stills(model, "film", pictures[69:]))
    many = Latent(torch.randn(2, 3, 16, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 3))
    torch.testing.assert_close(descriptor(many), many.values.mean(2))
