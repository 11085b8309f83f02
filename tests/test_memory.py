"""What was remembered is found, under its bounds and no others, wherever it is kept; nothing is lost to a kill."""

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memories
from ami.memory.episodic import About, Memory, kind
from ami.memory.exchange import bring_in, export
from ami.memory.moment import Moment, Where, posed, poses
from ami.memory.perceiving import descriptor, perceive_stills
from ami.models.baselines import Pixels
from ami.types import Embodiment, Latent


@pytest.fixture(scope="module", params=["folder", "server"])
def new(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Names for memories that are not there yet, of one kind or the other."""
    if request.param == "folder":
        return lambda: str(tmp_path_factory.mktemp("memory") / "m")
    server, number = request.getfixturevalue("server"), count()
    return lambda: f"{server}#m{next(number)}"


@pytest.fixture
def place(new: Callable[[], str]) -> str:
    return new()


@pytest.fixture(scope="module")
def filled(new: Callable[[], str]) -> tuple[str, list[Moment]]:
    """A memory with a sorted part, with two that came since, and what is in it."""
    place, made = new(), memories.moments(300)
    with Memory.create(place, memories.ABOUT) as memory:
        memory.append(made[:200])
        memory.sort()
        memory.append(made[200:290])
        memory.append(made[290:])
    return place, made


number = st.integers(-1, 5).map(float)


bounds = st.builds(
    Where,
    since=st.none() | number,
    until=st.none() | number,
    near=st.none() | st.tuples(number, number, number, st.sampled_from([0.0, 1.0, 1.5, 9.0])),
    episodes=st.none() | st.lists(st.sampled_from(["e0", "e1", "e2", "nobody"]), max_size=3).map(tuple),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    where=bounds,
    asked=st.integers(0, 10_000),
    top=st.integers(1, 40),
    apart=st.sampled_from([0.0, 1.0, 2.5]),
    exact=st.booleans(),
)
def test_recall_is_brute_force_under_bounds(
    filled, where: Where, asked: int, top: int, apart: float, exact: bool
) -> None:
    place, made = filled
    question = np.random.default_rng(asked).normal(size=memories.DIM)

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
    kept: list[tuple[float, int]] = []
    for one in true:
        me = made[one[1] - 1]
        others = [made[k - 1] for _, k in kept]
        if all(each.episode != me.episode or abs(each.time - me.time) >= apart for each in others):
            kept.append(one)
    with Memory.open(place) as memory:
        found = memory.recall(question, top, where, apart=apart, exact=exact)
        assert sorted(memory.rows(where).numbers.tolist()) == sorted(k for _, k in true)
    assert [each.number for each in found] == [k for _, k in kept[:top]]
    assert [each.distance for each in found] == pytest.approx([d for d, _ in kept[:top]], rel=1e-5)
    assert all(memories.same(each.moment, made[each.number - 1]) for each in found)


def test_what_was_near_a_place_comes_back_the_newest_first_with_its_poses(filled) -> None:
    place, made = filled
    where = Where(near=(1.0, 1.0, 2.0, 1.2), since=1.0)
    with Memory.open(place) as memory:
        rows, few = memory.rows(where), memory.rows(where, most=5)
        named = dict(memory.moments(rows.numbers.tolist()))
    order = list(zip(rows.times.tolist(), rows.numbers.tolist(), strict=True))
    assert order == sorted(order, reverse=True)
    assert list(named) == rows.numbers.tolist()
    assert few.numbers.tolist() == rows.numbers[:5].tolist()
    assert len(rows) > 20
    for k, number in enumerate(rows.numbers.tolist()):
        each = made[number - 1]
        assert each.place is not None
        assert math.dist(each.place, (1, 1, 2)) <= 1.2
        assert rows.places[k].tolist() == list(each.place)
        assert rows.turns[k].tolist() == list(each.turn) if each.turn else np.isnan(rows.turns[k]).all()
        assert np.array_equal(rows.vectors[k], each.latent)


def test_a_pose_is_place_and_turn() -> None:
    turned = np.array([[0, 0, 1, 4], [1, 0, 0, 5], [0, 1, 0, 6], [0, 0, 0, 1.0]])
    place, turn = posed(turned)
    assert place == (4, 5, 6)
    assert np.linalg.norm(turn) == pytest.approx(2 * np.pi / 3)  # x to y to z to x: a third of a full turn
    pose = Moment(np.ones(2), 0.0, place, turn=turn).pose
    np.testing.assert_allclose(pose, turned, atol=1e-12)
    np.testing.assert_allclose(poses(np.array([place] * 2), np.array([turn] * 2))[1], turned, atol=1e-12)
    assert Moment(np.ones(2), 0.0, place).pose is None


def test_a_reader_sees_what_is_written_while_it_is_open(place: str) -> None:
    made = memories.moments(60)
    with Memory.create(place, memories.ABOUT) as writer, Memory.open(place) as reader:
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


def test_numbers_are_never_given_twice(place: str) -> None:
    with Memory.create(place, memories.ABOUT) as memory:
        assert memory.append(memories.moments(3)) == [1, 2, 3]
        memory.forget([3])
        assert memory.append(memories.moments(1)) == [4]


def test_a_zero_below_zero_is_a_zero(place: str) -> None:
    """SQLite keeps no sign of it, and what was written is compared with what is read."""
    with Memory.create(place, memories.ABOUT) as memory:
        memory.append([Moment(np.zeros(memories.DIM), -0.0, (-0.0, 1.0, -0.0), surprise=-0.0, turn=(-0.0,) * 3)])
        assert memory.check() == []
        assert memory.recall(np.zeros(memories.DIM), 1)[0].moment.place == (0, 1, 0)


def test_a_limit_is_held_after_every_append(place: str) -> None:
    strange = Moment(np.full(memories.DIM, 9.0), 0.0, episode="once")
    with Memory.create(place, replace(memories.ABOUT, limit=40)) as memory:
        memory.append([strange])
        for seed in range(12):
            memory.append(memories.moments(9, seed))
            assert len(memory) <= 40
        assert memory.recall(strange.latent, 1)[0].moment.episode == "once"
        assert set(memory.episodes()) == {each.episode for _, each in memory.moments()}


def test_of_copies_the_latest_stays(place: str) -> None:
    with Memory.create(place, memories.ABOUT) as memory:
        memory.append([Moment(np.ones(memories.DIM), float(k)) for k in range(50)] + memories.moments(5))
        memory.prune(6)
        (found,) = memory.recall(np.ones(memories.DIM), 1)
        assert found.moment.time == 49


def test_no_acknowledged_moment_is_lost_to_kills(place: str) -> None:
    Memory.create(place, memories.ABOUT).close()
    assert max(memories.kill(place, 12)) < 1


def test_the_second_writer_is_refused(place: str) -> None:
    with Memory.create(place, memories.ABOUT) as memory:
        with pytest.raises(
            ValueError, match=rf"being written by another \(process {os.getpid()}.*one writer at a time"
        ):
            Memory.open(place, write=True)
        memory.append(memories.moments(2))
    with Memory.open(place, write=True) as memory:
        assert len(memory) == 2


def test_schemas_go_up_and_never_down(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Memory.create(place, memories.ABOUT) as memory:
        memory.append(memories.moments(3))
    module = sys.modules[kind(place).__module__]
    migrations = (*module.MIGRATIONS, "ALTER TABLE moments ADD COLUMN smell TEXT")
    monkeypatch.setattr(module, "MIGRATIONS", migrations)
    with pytest.raises(ValueError, match="any verb that writes to it brings it here"):
        Memory.open(place)
    with Memory.open(place, write=True) as memory:
        assert len(memory.recall(np.zeros(memories.DIM), 5)) == 3
    with Memory.open(place) as memory:
        assert memory.check() == []
    monkeypatch.undo()
    for write in (False, True):
        with pytest.raises(ValueError, match="has schema 2, this AMI reads up to 1; install a newer AMI"):
            Memory.open(place, write=write)


def test_what_does_not_fit_is_refused(filled) -> None:
    place, made = filled
    with Memory.open(place, write=True) as memory:
        with pytest.raises(ValueError, match=f"remembers {memories.DIM} of each"):
            memory.append([*made[:2], Moment(np.zeros(3), 0.0)])
        with pytest.raises(ValueError, match=f"remembers {memories.DIM} numbers of each"):
            memory.recall(np.zeros(3))
        with pytest.raises(ValueError, match="finite numbers"):
            memory.recall(np.full(memories.DIM, np.nan))
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
    with pytest.raises(ValueError, match="farther than any place"):
        Where(near=(0, 0, 0, math.inf))
    with pytest.raises(ValueError, match="bounds nothing"):
        Where(near=(0, 0, 0, -1))


def test_export_and_import_give_the_same_memory(filled, new: Callable[[], str], tmp_path: Path) -> None:
    (place, made), again, other = filled, new(), new()
    with Memory.open(place) as memory:
        assert export(memory, tmp_path / "x.npz") == len(made)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as held:
        assert held["latents"].shape == (len(made), memories.DIM)
    assert bring_in(tmp_path / "x.npz", again) == len(made)
    with Memory.open(again) as memory:
        assert memory.about == memories.ABOUT
        assert all(memories.same(each, made[k - 1]) for k, each in memory.moments())
    written = bytearray((tmp_path / "x.npz").read_bytes())
    written[2000] ^= 255
    (tmp_path / "y.npz").write_bytes(written)
    with pytest.raises(ValueError, match="is not the export of a memory, or is damaged"):
        bring_in(tmp_path / "y.npz", other)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with np.load(tmp_path / "x.npz", allow_pickle=False) as held:
        arrays = dict(held)
    about = {**json.loads(arrays["about"].item()), "colour": 1}
    np.savez(tmp_path / "told.npz", **{**arrays, "about": np.array(json.dumps(about))})
    np.savez(tmp_path / "less.npz", **{name: each for name, each in arrays.items() if name != "surprise"})
    for name in ("one.npy", "told.npz", "less.npz"):
        with pytest.raises(ValueError, match="is not the export of a memory, or is damaged"):
            bring_in(tmp_path / name, other)
        assert not kind(other).exists(other)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as held:
        np.savez(tmp_path / "z.npz", **{**held, "times": np.full(len(made), np.nan)})
    with pytest.raises(ValueError, match="must be finite"):
        bring_in(tmp_path / "z.npz", other)
    assert not kind(other).exists(other)


def test_another_checkpoint_looks_at_the_thumbnails_again(place: str) -> None:
    made = [replace(each, thumbnail=memories.JPEG + bytes([k])) for k, each in enumerate(memories.moments(30))]
    other = About("decaf", "film", 3)

    def perceive(thumbnails: list[bytes]) -> np.ndarray:
        return np.array([[each[-1], 0, 1] for each in thumbnails], np.float32)

    with Memory.create(place, memories.ABOUT) as memory:
        memory.append([*made, replace(made[0], thumbnail=None)])
        with pytest.raises(ValueError, match=r"1 moments of .* have no thumbnail"):
            memory.reembed(other, perceive)
        memory.forget(memory.blind())
        with pytest.raises(ValueError, match="were due"):
            memory.reembed(other, lambda thumbnails: perceive(thumbnails)[:, :2])
        assert memory.about == memories.ABOUT
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
