"""The physics, the picture and the distance of Two Rooms are what its docstring says."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from ami.worlds import rooms as tr
from ami.worlds.rooms import (
    BAND,
    FAMILIES,
    FLOOR,
    GAP,
    HIGH,
    LOW,
    REVISITED,
    SEALED,
    SHUT,
    SPEED,
    WALKS,
    Rooms,
    sample_pairs,
    sample_rooms,
)


def _may_be(rooms: Rooms, position: np.ndarray) -> np.ndarray:
    """Whether the agent's centre may be there, said independently of ``move``; a billionth of a px is rounding."""
    inside = ((position >= LOW - 1e-9) & (position <= HIGH + 1e-9)).all(-1)
    off_wall = np.abs(position[:, 0] - rooms.wall) >= BAND - 1e-9
    in_gap = np.abs(position[:, 1] - rooms.door) <= GAP + 1e-5
    return inside & (off_wall | in_gap)


@given(seed=st.integers(0, 2**32 - 1), family=st.sampled_from((*FAMILIES, SEALED)))
@settings(max_examples=15, deadline=None)
def test_nobody_enters_a_wall_or_goes_too_fast(seed: int, family: str) -> None:
    rng = np.random.default_rng(seed)
    rooms = sample_rooms(family, 200, rng)
    position = tr.sample_positions(rooms, rng)
    if family != SEALED:
        position[:100] = np.stack([rooms.wall[:100], rooms.door[:100] + rng.uniform(-GAP, GAP, 100)], -1)
    assert _may_be(rooms, position).all()
    for _ in range(25):
        action = rng.uniform(-1, 1, (200, 2)) * rng.choice([0.1, 1.0, 30.0], (200, 1))
        action[::2, 0] *= 0.05  # pushes along the door's sides, where rounding could throw one out
        for _ in range(3):
            to = rooms.move(position, action)
            assert _may_be(rooms, to).all()
            assert (np.linalg.norm(to - position, axis=-1) <= SPEED + 1e-9).all()
            position = to


def test_actions_are_directions_and_a_pace() -> None:
    rooms, start = Rooms(np.full(3, 32.0), np.full(3, 32.0)), np.full((3, 2), 15.0)
    to = rooms.move(start, np.array([[3.0, 4.0], [0.3, -0.4], [0.0, 0.0]]))
    np.testing.assert_allclose(to - start, [[1.2, 1.6], [0.6, -0.8], [0.0, 0.0]])


def test_walls_slide() -> None:
    rooms = Rooms(np.full(2, 32.0), np.full(2, 20.0))
    at_wall = np.array([[32 - BAND, 45.0], [LOW, 45.0]])
    to = rooms.move(at_wall, np.array([[0.6, 0.8], [-0.6, 0.8]]))
    np.testing.assert_allclose(to - at_wall, [[0.0, 1.6], [0.0, 1.6]])


@pytest.mark.parametrize("offset", [-GAP, 0.0, GAP])
def test_the_door_lets_through_and_its_sides_hold(offset: float) -> None:
    rooms = sample_rooms("wall", 500, np.random.default_rng(3))
    position = np.stack([rooms.wall - BAND - 1.0, rooms.door + offset], -1)
    assert (rooms.side(position) == -1).all()
    along = np.array([0.8, 0.6 * np.sign(offset)])  # leaning on the door's side all the way through
    for _ in range(2):
        position = rooms.move(position, np.broadcast_to(along, position.shape))
    assert (rooms.side(position) == 0).all()
    for _ in range(4):
        position = rooms.move(position, np.broadcast_to(along, position.shape))
    assert (rooms.side(position) == 1).all()


def test_beside_the_door_the_wall_is_closed() -> None:
    rooms = sample_rooms("wall", 500, np.random.default_rng(4))
    for beside in (-GAP - 0.01, GAP + 0.01):
        position = np.stack([rooms.wall - BAND, rooms.door + beside], -1)
        for _ in range(10):
            position = rooms.move(position, np.broadcast_to([1.0, 0.0], position.shape))
        np.testing.assert_allclose(position[:, 0], rooms.wall - BAND)


def test_a_model_step_is_four_environment_steps() -> None:
    rng = np.random.default_rng(0)
    rooms = sample_rooms("wall", 50, rng)
    position, action = tr.sample_positions(rooms, rng), rng.uniform(-1, 1, (50, 2))
    passed = rooms.step(position, action)
    assert len(passed) == 4
    for place in passed:
        position = rooms.move(position, action)
        np.testing.assert_array_equal(place, position)


def test_the_picture_shows_where_the_agent_is() -> None:
    rng = np.random.default_rng(0)
    rooms = sample_rooms("wall", 300, rng)
    position = tr.sample_positions(rooms, rng)
    position[:50] = np.stack([rooms.wall[:50], rooms.door[:50]], -1)
    changed = np.abs(rooms.render(position).astype(float) - rooms.background()).sum(-1)
    # How much of a pixel the disc covers: its colour change over what a full change would be there.
    full = np.abs(rooms.background().astype(float) - tr.AGENT).sum(-1)
    cover = changed / full
    centre = np.arange(64) + 0.5
    seen = np.stack([(cover.sum(1) * centre).sum(1), (cover.sum(2) * centre).sum(1)], -1) / cover.sum((1, 2))[:, None]
    assert np.abs(seen - position).max() < 0.1
    np.testing.assert_allclose(cover.sum((1, 2)), np.pi * tr.RADIUS**2, rtol=0.05)


def test_the_picture_shows_the_layout() -> None:
    rooms = sample_rooms("wall", 100, np.random.default_rng(1))
    dark = 1.0 - np.abs(rooms.background().astype(float) - tr.WALL).sum(-1) / np.abs(FLOOR - tr.WALL).sum()
    inner = dark[:, 4:60, 12:52]  # within the outer walls, where the column may stand
    wall = (inner.sum(1) * (np.arange(12, 52) + 0.5)).sum(1) / inner.sum((1, 2))
    np.testing.assert_allclose(wall, rooms.wall, atol=0.1)
    opening = 2.0 - inner.sum(2)  # the wall is 2 px thick
    door = (opening * (np.arange(4, 60) + 0.5)).sum(1) / opening.sum(1)
    np.testing.assert_allclose(door, rooms.door, atol=0.1)


def _grid_geodesics(rooms: Rooms, starts: np.ndarray, goals: np.ndarray, unit: float = 0.5) -> np.ndarray:
    """Dijkstra on a fine grid with steps in 32 directions: an upper bound, at most about 1 % too long."""
    axis = np.arange(LOW, HIGH + unit / 2, unit)
    place = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    one_room = rooms.repeat(len(place))
    moves = [(i, j) for i in range(-4, 5) for j in range(-4, 5) if np.gcd(i, j) == 1]
    rows, columns, lengths = [], [], []
    for move in moves:
        step = np.array(move) * unit
        free = np.all([_may_be(one_room, place + share * step) for share in np.linspace(0, 1, 17)], axis=0)
        here = np.flatnonzero(free)
        rows.append(here)
        columns.append(here + move[0] * len(axis) + move[1])
        lengths.append(np.full(len(here), np.linalg.norm(step)))
    graph = csr_array(
        (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns))), shape=(len(place), len(place))
    )
    first, last = (np.rint((ends - LOW) / unit).astype(int) @ np.array([len(axis), 1]) for ends in (starts, goals))
    return dijkstra(graph, indices=first)[np.arange(len(first)), last]


def test_distance_is_the_shortest_way_on_a_grid() -> None:
    rooms = Rooms(np.full(1, 28.0), np.full(1, 40.0))  # on the grid: the band is [24.5, 31.5], the gap [36.25, 43.75]
    cases = [
        ((10.0, 40.0), (50.0, 40.0)),  # straight through
        ((10.0, 12.0), (50.0, 12.0)),  # both corners of one side
        ((10.0, 50.0), (52.0, 39.0)),  # one bend, then straight
        ((24.5, 10.0), (31.5, 10.0)),  # touching the wall from both sides
        ((24.5, 10.0), (24.5, 50.0)),  # along the wall, in one room
        ((28.0, 38.0), (12.0, 12.0)),  # out of the doorway
        ((26.0, 42.0), (50.0, 10.0)),  # out of it, on the far side
        ((28.0, 37.0), (29.5, 43.0)),  # within it
        ((12.0, 12.0), (20.0, 50.0)),  # never near it
        ((8.0, 58.0), (58.0, 6.0)),
    ]
    a, b = (np.array(ends) for ends in zip(*cases, strict=True))
    exact = rooms.repeat(len(cases)).distance(a, b)
    np.testing.assert_allclose(exact, rooms.repeat(len(cases)).distance(b, a))
    grid = _grid_geodesics(rooms, a, b)
    assert (exact <= grid + 1e-3).all()
    # Half a px at each corner: the door's sides lie a quarter of a px beside the grid.
    assert (grid <= 1.015 * exact + 0.5).all()


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_distance_is_a_metric_that_no_walk_beats(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rooms = sample_rooms("wall", 100, rng)
    a, b = (tr.sample_positions(rooms, rng) for _ in range(2))
    doorway = np.stack([rooms.wall + rng.uniform(-BAND, BAND, 100), rooms.door + rng.uniform(-GAP, GAP, 100)], -1)
    ab, ac, cb = rooms.distance(a, b), rooms.distance(a, doorway), rooms.distance(doorway, b)
    np.testing.assert_allclose(ab, rooms.distance(b, a))
    assert (ab >= np.linalg.norm(b - a, axis=-1) - 1e-9).all()
    assert (ab <= ac + cb + 1e-9).all()
    walked = tr.Rooms.step(rooms, a, rng.uniform(-1, 1, (100, 2)))[-1]
    assert (rooms.distance(a, walked) <= 4 * SPEED + 0.05).all()  # four short steps cut a corner a little


def test_distance_does_not_mind_rounding_at_the_wall() -> None:
    """A recorded position is a float32: one that touches the wall may then lie a millionth of a px inside it."""
    rooms = Rooms(np.full(1, 32.0), np.full(1, 50.0))
    goal, away = np.array([[50.0, 10.0]]), 1e-5
    touching = rooms.distance(np.array([[32 - BAND, 10.0]]), goal)
    inside = rooms.distance(np.array([[32 - BAND + away, 10.0]]), goal)
    np.testing.assert_allclose(inside, touching, atol=1e-3)


def test_a_sealed_wall_is_the_same_wall_without_its_door() -> None:
    draws = [np.random.default_rng(6) for _ in range(2)]
    (twins, start, goal), (rooms, *places) = (
        sample_pairs(family, 300, rng, cross_room=True) for family, rng in zip(("wall", SEALED), draws, strict=True)
    )
    np.testing.assert_array_equal(rooms.wall, twins.wall)
    np.testing.assert_array_equal(places, [start, goal])
    assert (rooms.door == SHUT).all()
    assert np.isinf(rooms.distance(start, goal)).all()
    assert np.isinf(rooms.distance(goal, start)).all()
    beside = tr.sample_positions(rooms, np.random.default_rng(7), rooms.side(start))
    touching = np.stack([rooms.wall + BAND * rooms.side(start), beside[:, 1]], -1)
    for place in (beside, touching, touching.astype(np.float32).astype(float)):
        np.testing.assert_allclose(rooms.distance(start, place), np.linalg.norm(place - start, axis=-1), atol=1e-3)
    # The column is the wall's alone, without the opening of 2 * (GAP + RADIUS) by 2 px that its twin has.
    lighter = (twins.background().astype(float) - rooms.background()).sum((1, 2, 3)) / (FLOOR - tr.WALL).sum()
    np.testing.assert_allclose(lighter, 2.0 * 2 * (GAP + tr.RADIUS), rtol=0.02)


def test_a_revisited_layout_is_walked_twice_and_every_sixth_is_sealed() -> None:
    walks = tr.collect(REVISITED, 24, 5, seed=3)
    assert [walk.place.rsplit("-", 1)[1] for walk in walks] == [str(i // WALKS) for i in range(24)]
    truth = np.stack([walk.truth for walk in walks])
    assert (truth[:, :, 2:] == truth[::WALKS].repeat(WALKS, 0)[:, :1, 2:]).all()
    assert ((truth[:, 0, 3] == SHUT) == (np.arange(24) // WALKS % 6 == 5)).all()
    assert (truth[::2, 0, :2] != truth[1::2, 0, :2]).all()  # from elsewhere
    assert len({walk.source for walk in walks}) == 24
    assert tr.collect(SEALED, 2, 5, seed=3)[0].place == ""


def test_nobody_leaves_a_sealed_room() -> None:
    episodes = tr.collect(SEALED, 40, 64, seed=0)
    truth = np.stack([episode.truth for episode in episodes]).astype(float)
    left = truth[..., 0] < truth[..., 2]
    assert (left == left[:, :1]).all()
    assert 0.2 < left.mean() < 0.8
    assert np.isfinite(truth).all()
    rooms = Rooms(truth[:, 0, 2], truth[:, 0, 3])  # a recorded layout is the layout
    np.testing.assert_array_equal(np.stack([e.video[0] for e in episodes]), rooms.render(truth[:, 0, :2]))


@pytest.mark.parametrize("cross_room", [True, False])
def test_pairs_are_apart_and_on_the_sides_asked_for(cross_room: bool) -> None:
    rooms, start, goal = sample_pairs("wall", 400, np.random.default_rng(0), cross_room=cross_room)
    assert (rooms.side(start) * rooms.side(goal) == (-1 if cross_room else 1)).all()
    assert rooms.distance(start, goal).min() >= 9.0
    assert _may_be(rooms, start).all()
    assert _may_be(rooms, goal).all()


def test_recorded_walks_use_the_door_and_push_the_walls() -> None:
    episodes = tr.collect("door", 60, 64, seed=0)
    truth = np.stack([episode.truth for episode in episodes]).astype(float)
    rooms = Rooms(truth[:, 0, 2], truth[:, 0, 3])
    sides = np.stack([rooms.side(truth[:, t, :2]) for t in range(64)], 1)
    assert ((sides == 1).any(1) & (sides == -1).any(1)).mean() > 0.15
    moved = np.linalg.norm(np.diff(truth[..., :2], axis=1), axis=-1)
    asked = np.linalg.norm(np.stack([episode.actions for episode in episodes]), axis=-1).clip(max=1) * 8
    assert 0.05 < (moved < 0.9 * asked).mean() < 0.5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*render_mode")
def test_it_is_a_gymnasium_environment(family: str) -> None:
    env = gymnasium.make(f"ami.worlds.rooms_env:ami/TwoRooms-{family}-v0", render_mode="rgb_array")
    check_env(env.unwrapped)


def test_the_environment_is_the_rooms_one_step_at_a_time() -> None:
    env = gymnasium.make("ami.worlds.rooms_env:ami/TwoRooms-wall-v0")
    picture, info = env.reset(seed=5)
    again, same = env.reset(seed=5)
    np.testing.assert_array_equal(picture, again)
    np.testing.assert_array_equal(info["state"], same["state"])
    x, y, wall, door = info["state"]
    rooms, position = Rooms(np.array([wall]), np.array([door])), np.array([[x, y]])
    rng, steps, truncated = np.random.default_rng(0), 0, False
    while not truncated:
        action = rng.uniform(-1, 1, 2).astype(np.float32)
        picture, _, terminated, truncated, info = env.step(action)
        position = rooms.move(position, action[None].astype(float))
        steps += 1
        np.testing.assert_allclose(info["state"][:2], position[0])
        np.testing.assert_array_equal(picture, rooms.render(position)[0])
        assert not terminated
    assert steps == 120


def test_success_is_where_the_agent_is_and_the_goal_is_its_picture() -> None:
    env = gymnasium.make("ami.worlds.rooms_env:ami/TwoRooms-fixed-v0", cross_room=False)
    picture, info = env.reset(seed=1)
    goal = info["goal_state"]
    assert info["distance"] >= 9.0
    assert not info["success"]
    rewards = []
    for _ in range(120):
        toward = goal - info["state"][:2]
        picture, reward, _, _, info = env.step((toward / SPEED).clip(-1, 1).astype(np.float32))
        rewards.append(reward)
    assert info["success"]
    assert info["distance"] < 1e-5
    assert rewards[0] == 0.0
    assert rewards[-1] == 1.0
    assert np.abs(picture.astype(int) - info["goal"]).max() <= 1
