"""Memory Maze: the geometry of what is recorded, who knows the way gets there, and who seeks goes where it saw it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.test_places import model

from ami.data.episodes import Episode, Store
from ami.evaluation.benchmark import Asking
from ami.evaluation.seeking import Legs, Seeker, Sight, fit_sight
from ami.evaluation.suites import SUITES
from ami.evaluation.suites.memory_maze import Believer, MemoryMazeBenchmark, Told
from ami.models.baselines import CopyLast
from ami.nn.places import between, moved
from ami.planning.routes import Routes
from ami.recipes.places import places
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel
from ami.worlds import maze_walks, memory_maze
from ami.worlds.gym import record
from ami.worlds.maze import EMBODIMENT as OWN
from ami.worlds.maze import pose_matrix
from ami.worlds.memory_maze import (
    EMBODIMENT,
    HALF,
    MOVES,
    NAME,
    SIDE,
    STRIDE,
    TURN,
    MemoryMaze,
    Plan,
    Seen,
    Wanderer,
    asked,
    inside,
    intrinsics,
    nearest,
    planar,
    shown,
    told,
)

MISSING = importlib.util.find_spec("memory_maze") is None
needs_maze = pytest.mark.skipif(MISSING, reason="not installed: pip install 'openami[memory-maze]'")
COLUMNS = 16


def plan() -> Plan:
    """A ring of cells with a bar across it: two ways round."""
    shut = np.ones((SIDE, SIDE), bool)
    shut[1:4, 1:8] = shut[5:8, 1:8] = False
    return Plan(shut, np.array([[0.5, 4.5], [8.5, 4.5], [4.5, 4.5]]))


@dataclass
class Drawn:
    """A maze without a simulator: who walks stops at walls, and its pictures say how far each colour is."""

    plan: Plan = field(default_factory=plan)
    pose: np.ndarray = field(default_factory=lambda: np.array([0.5, 0.5, 1.5]))
    wanted: int = 0

    @property
    def first(self) -> Seen:
        return Seen(self.picture, self.wanted, 0.0)

    @property
    def camera(self) -> np.ndarray:
        return pose_matrix(self.pose)

    @property
    def picture(self) -> np.ndarray:
        near = shown(walk(self.plan, self.pose[None]), COLUMNS)[0]
        return np.repeat((near * 20).astype(np.uint8), 4, 0)[None].repeat(64, 0)

    def step(self, action: int) -> Seen:
        ahead, left = MOVES[action]
        step = torch.tensor([STRIDE * ahead, 0.0, TURN * left])
        went = moved(torch.from_numpy(self.pose).float(), step).double().numpy()
        open_ = bool(self.plan.free(torch.from_numpy(went[None, :2]))[0])
        self.pose = went if open_ else np.array([*self.pose[:2], went[2]])
        there = np.linalg.norm(self.pose[:2] - self.plan.things[self.wanted]) < 0.35
        self.wanted = (self.wanted + 1) % 3 if there else self.wanted
        return Seen(self.picture, self.wanted, float(there))


def walk(where: Plan, poses: np.ndarray) -> Episode:
    """A recorded walk in which no wall hides anything but by where the ways to it are shut."""
    aside, far = HALF * (1 - (np.arange(64) + 0.5) / 32), np.arange(0.05, 9.0, 0.05)
    cos, sin = np.cos(poses[:, 2, None]), np.sin(poses[:, 2, None])
    toward = np.stack([cos - aside * sin, sin + aside * cos], -1)
    rays = poses[:, None, None, :2] + far[:, None] * toward[:, :, None]  # (pose column point axis)
    met = where.free(torch.from_numpy(rays.reshape(-1, 2))).numpy().reshape(rays.shape[:-1]) < 0.5
    depth = np.where(met.any(-1), far[met.argmax(-1)], 9.0).astype(np.float32)[:, None].repeat(64, 1)
    return Episode(
        times=np.arange(len(poses)) * 0.25,
        depth=depth,
        truth=np.concatenate([poses, np.tile(where.things.ravel(), (len(poses), 1))], 1),
    )


class Knowing(WorldModel):
    """Believes the truth about the drawn maze: a pose by what was done, a map by heart, and what a picture says."""

    def __init__(self) -> None:
        super().__init__()
        self.embodiments: dict[str, Embodiment] = {NAME: EMBODIMENT}
        self.places, self.latent_shape = (NAME,), (COLUMNS, 3)

    def encode(self, clip: Clip) -> Latent:
        assert clip.video is not None
        return Latent(clip.video[:, :, 0, :, 0, ::4].transpose(2, 3).float() / 20, clip.times)

    def believe(
        self, belief: Belief | None, seen: Latent, actions: torch.Tensor | None, embodiment: str = ""
    ) -> Belief:
        if belief is None:
            return Belief(embodiment, seen, recurrent=torch.zeros(1, 3))
        assert actions is not None
        assert belief.recurrent is not None
        ahead, left = actions[0, 0, :2]
        step = torch.stack([STRIDE * ahead, 0 * ahead, TURN * left])
        return replace(belief, latents=seen, recurrent=moved(belief.recurrent, step[None]))

    def where(self, belief: Belief) -> torch.Tensor:
        assert belief.recurrent is not None
        return belief.recurrent

    def free(self, belief: Belief, points: torch.Tensor) -> torch.Tensor:
        start = torch.tensor([0.5, 0.5, 1.5]).expand(*points.shape[:2], -1)
        at = moved(start, torch.cat([points, torch.zeros_like(points[..., :1])], -1))
        return plan().free(at[0, :, :2])[None]


class Shows(Sight):
    """Reads the distances that the pictures of a drawn maze say."""

    def __init__(self) -> None:
        super().__init__(3, 3)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.where(tokens > 0, 9.0, -9.0), tokens.clamp_min(0.05).log()


def seeker(window: int | None = None, model: Knowing | None = None) -> Seeker:
    legs = Legs(STRIDE, TURN, HALF, Routes(spacing=0.25, body=0.2, reach=9.0))
    return Seeker(model or Knowing(), NAME, Shows(), legs, np.random.default_rng(0), window)


def test_moves_are_told_with_the_move_before_them() -> None:
    assert [nearest(np.array(move, float)) for move in MOVES] == list(range(6))
    assert nearest(np.array([0.5, -0.45])) == 1
    assert told(np.array([1, 4]), 3).tolist() == [[1, 0, 0, -1], [1, 1, 1, 0]]


def test_the_border_says_what_is_asked_and_is_not_seen() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    frames = []
    for colour in ((170, 38, 30), (99, 170, 88), (39, 140, 217)):
        frame = picture.copy()
        for edge in (np.s_[:2], np.s_[-2:], np.s_[:, :2], np.s_[:, -2:]):
            frame[edge] = np.array(colour) / 220 * 255 * 0.7
        frames.append(frame)
    assert [asked(frame) for frame in frames] == [0, 1, 2]
    assert all(np.array_equal(inside(frame), inside(frames[0])) for frame in frames)
    assert np.array_equal(inside(frames[0])[2:-2, 2:-2], picture[2:-2, 2:-2])


def test_a_column_shows_what_lies_in_it_and_is_not_hidden() -> None:
    poses = np.array([[0.5, 1.5, np.pi / 2], [0.5, 1.5, -np.pi / 2], [1.5, 4.5, 0.0], [0.5, 4.5, 0.0]])
    true = shown(walk(plan(), poses), COLUMNS)
    assert true[0, 7:9, 0] == pytest.approx(3.0)
    assert (true[0, :, 0] > 0).sum() < 6
    assert not true[1].any()  # it looks away
    assert not true[2:, :, 1].any()  # behind two walls
    left = shown(walk(plan(), np.array([[0.5, 1.5, np.pi / 2 - 0.4]])), COLUMNS)[0, :, 0]
    assert left[:8].any()
    assert not left[8:].any()


def test_who_wanders_comes_by_everywhere() -> None:
    maze = Drawn()
    who, been = Wanderer(maze.plan, np.random.default_rng(0)), set()
    for _ in range(800):
        maze.step(who.choose(planar(maze.camera)))
        been.add(tuple(np.floor(maze.pose[:2]).astype(int)))
    assert len(been) > 0.9 * maze.plan.open.sum()


def test_who_is_told_all_scores_by_the_shortest_way() -> None:
    steps = (4.0 + 16.0 + 12.0) / STRIDE  # up the ring, round half of it, and back into its middle
    assert MemoryMazeBenchmark(steps=int(steps) - 3).play(Told(), Drawn()).score == 2
    played = MemoryMazeBenchmark(steps=int(1.4 * steps)).play(Told(), Drawn())
    assert played.score == 3
    assert 0 < played.late < 3


def live(who: Seeker, maze: Drawn, actions: list[int]) -> None:
    """Walk, and see all of it."""
    for number, action in enumerate([0, *actions]):
        seen = maze.first if number == 0 else maze.step(action)
        video = torch.from_numpy(seen.picture).permute(2, 0, 1)[None, None, None]
        who.see(who.model.encode(Clip(NAME, torch.zeros(1, 1), video)), torch.from_numpy(told(np.array([action]))[0]))


def test_who_seeks_goes_to_what_it_sees() -> None:
    who = Believer(seeker())
    maze = Drawn()
    played = MemoryMazeBenchmark(steps=30).play(who, maze)
    assert played.score == 1
    assert who.lost(maze) == pytest.approx(played.lost)
    assert played.lost < 0.3


def test_who_seeks_goes_back_to_where_it_saw_it_and_who_forgets_does_not() -> None:
    places = {}
    for window in (None, 4):
        who, maze = seeker(window), Drawn(pose=np.array([0.5, 1.5, 1.5]))
        live(who, maze, [2] * 9)  # half a circle
        assert not maze.picture.any()
        places[window] = who.place(0)
        turned = maze.pose[2]
        live(who, maze, [nearest(who.wish(0).numpy())])
        assert window or abs(maze.pose[2] - turned) > 0.3  # it turns back
    assert places[None] is not None
    assert places[4] is None
    true = between(torch.tensor([0.5, 1.5, 1.5]), torch.tensor([0.5, 4.5, 0.0]))[:2]
    assert (places[None] - true).norm() < 0.3


def test_where_a_thing_should_be_and_is_not_it_is_looked_for_elsewhere() -> None:
    who, maze = seeker(), Drawn(pose=np.array([0.5, 2.5, 1.5]))
    live(who, maze, [])
    place = who.place(0)
    assert place is not None
    assert who.place(1) is None
    assert who.belief is not None
    who.wish(0)
    assert who.place(0) is not None  # one is not there yet
    who.belief = replace(who.belief, recurrent=torch.tensor([[*place.tolist(), 0.0]]))
    who.wish(0)
    assert who.place(0) is None


class Strip(Knowing):
    """Has looked at all that lies between two lines across its first heading, and never looks beyond them."""

    def __init__(self, behind: float, ahead: float) -> None:
        super().__init__()
        self.behind, self.ahead = behind, ahead

    def free(self, belief: Belief, points: torch.Tensor) -> torch.Tensor:
        known = (points[..., 0] > self.behind) & (points[..., 0] < self.ahead)
        return torch.where(known, super().free(belief, points), 0.5)


def test_who_looks_for_what_is_new_does_not_turn_back_for_a_little() -> None:
    for behind, ahead, goes_on in ((1.0, 5.4, True), (1.4, 7.6, False)):  # it stands at 3 m
        who, maze = seeker(model=Strip(behind, ahead)), Drawn()
        live(who, maze, [1] * 12)
        for _ in range(16):
            live(who, maze, [nearest(who.wish(1).numpy())])
        assert (float(who.pose[0]) > 3.0) is goes_on


def test_beside_what_was_never_seen_one_turns_the_same_way_and_once() -> None:
    who, maze = seeker(model=Strip(-9.0, 3.2)), Drawn()
    live(who, maze, [1] * 11)
    around = int(2 * np.pi / TURN) + 1
    wishes = []
    for _ in range(around):
        wishes.append(nearest(who.wish(1).numpy()))
        live(who, maze, [wishes[-1]])
    assert wishes == [MOVES.index((0, 1))] * around  # left all the way
    before = who.pose
    for _ in range(20):
        live(who, maze, [nearest(who.wish(1).numpy())])
    assert (who.pose - before)[:2].norm() > 1.0  # it goes on to another such place


def test_sight_is_learned() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(200, 4, 5, generator=generator)
    true = torch.where(tokens[..., :2] > 0.5, tokens[..., :2] * 2, 0.0)
    sight = fit_sight(tokens, true, 300, 0)
    likely, far = sight(tokens)
    assert ((likely > 0) == (true > 0)).float().mean() > 0.95
    assert (far.exp() - true)[true > 0].abs().mean() < 0.25
    one, other = (fit_sight(tokens, true, 3, 0).layers[0].weight for _ in range(2))  # pyright: ignore
    assert torch.equal(one, other)


def test_a_model_is_built_for_the_camera_that_its_walks_were_seen_by(tmp_path: Path) -> None:
    rng, pose = np.random.default_rng(0), np.tile(np.eye(4, dtype=np.float32), (20, 1, 1))
    store = Store.create(tmp_path / "outside", EMBODIMENT)
    recorded = Episode(
        times=np.arange(20) * 0.25,
        video=rng.integers(0, 255, (20, 64, 64, 3), np.uint8),
        depth=rng.uniform(0.5, 4.0, (20, 64, 64)).astype(np.float32),
        pose=pose,
        intrinsics=intrinsics(),
        actions=told(rng.integers(0, 6, 19)),
    )
    store.append([recorded])
    assert places([store]).build().config.half == pytest.approx(HALF, abs=1e-6)
    own = Store.create(tmp_path / "own", OWN, maze_walks.TRUTH)
    own.append(maze_walks.collect(1, 20, 0))
    assert places([own]).build().config.half == 1.0
    with pytest.raises(ValueError, match="span different angles"):
        places([store, own])


def test_who_has_not_learned_it_is_told_how() -> None:
    for blind in (CopyLast(model()), model()):
        with pytest.raises(ValueError, match=r"'memory-maze' .* `ami collect memory-maze`"):
            MemoryMazeBenchmark().run(blind, 2, Asking())
    assert NAME in SUITES


@pytest.mark.skipif(not MISSING, reason="all is installed")
def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match=r"openami\[memory-maze\]"):
        record(NAME, 1, 2, 0)


@needs_maze
def test_walls_are_where_the_plan_has_them() -> None:
    (episode,) = memory_maze.collect(1, 60, 3)
    focal = intrinsics()[0]
    down, right = np.mgrid[:64, :64] + 0.5
    rays = np.stack([(right - 32) / focal, (down - 32) / focal, np.ones_like(right)], -1)
    assert episode.depth is not None
    assert episode.pose is not None
    for frame in range(0, 60, 10):
        points = (rays * episode.depth[frame][..., None]) @ episode.pose[frame][:3, :3].T + episode.pose[frame][:3, 3]
        ground = points[..., 2] < 0.02
        assert np.abs(points[60, :, 2]).max() < 0.35  # floor, or what is coloured on it
        wall = ~ground & (points[..., 2] < 0.74) & (episode.depth[frame] > 0)
        off = np.abs(points[wall][:, :2] - np.round(points[wall][:, :2])).min(1)
        assert np.median(off) < 0.02


@needs_maze
def test_walking_is_stepping_and_looking_is_what_the_task_shows() -> None:
    one, other = MemoryMaze(5), MemoryMaze(5)
    assert np.array_equal(one.plan.open, other.plan.open)
    for action in (1, 4, 2, 1, 0):
        seen = one.step(action)
        other.walk(action)
        assert planar(one.camera) == pytest.approx(planar(other.camera), abs=1e-6)
        assert np.abs(seen.picture.astype(int) - one.look()[0]).max() <= 1
    for each in (one, other):
        each.close()


@needs_maze
def test_who_is_told_all_reaches_colours() -> None:
    maze = MemoryMaze(7)
    assert MemoryMazeBenchmark(steps=150).play(Told(), maze).score >= 2
    maze.close()
