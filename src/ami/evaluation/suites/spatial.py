"""What of a place is in the latents of its views: depth, poses, things, the same view by another sense or from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami import geometry
from ami.data.camera import CAMERA, as_camera
from ami.evaluation import places
from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.places import Eye
from ami.evaluation.statistics import bootstrap_mean, bootstrap_r2
from ami.types import Belief, Clip, Interval, Latent, Result, WorldModel
from ami.worlds import gym, maze

_SEED = 8_000_000  # no training draws from so far up: recipes' seeds are small numbers
_TOGETHER = 50  # episodes that are recorded at once
_VISIBLE = 8  # px of a thing that is asked about
_ANGLES = (5, 10, 30)  # degrees up to which relative poses are counted
_NINE = "six numbers of the rotation and three of the translation"

Rows = Mapping[str, Float[np.ndarray, "n"]]


@dataclass(frozen=True)
class Places:
    """Questions about fresh walks through a world, to an encoder that sees colours alone unless it is said otherwise.

    Each is read by the same probe from the model, from the same architecture with fresh weights, from principal
    components of the pixels and from rivals at hand (the twin that learned from colours alone, the one that was told
    wrong poses).
    """

    world: str
    learn: int = 600  # episodes that probes learn from
    steps: int = 12
    apart: int = 4  # steps between two views whose relative pose is asked, at most
    held: tuple[int, ...] = (0, 2, 4)  # steps of which the views are held
    asked: int = 6  # and the one whose view is asked for
    among: int = 256
    probe_steps: int = 1500

    @property
    def name(self) -> str:
        """What its results are called, all of them."""
        things = ", position, velocity, yaw" if self.world == "tabletop" else ""
        return f"spatial/(depth-from-rgb, relative-pose, ego-motion, cross-modal, queried-view{things})"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"spatial: probes learn from {self.learn} episodes of {self.steps} steps of {self.world} and are asked about "
            "fresh ones; encoders see colours alone. Depth of 16 x 16 cells by a ridge; all else by one network of two "
            f"hidden layers: of two views up to {self.apart} steps apart, {_NINE} (AUC of the larger of the errors of "
            "rotation and direction); of three views in a row the velocity.",
            f"cross-modal: the nearest of {self.among} views, one of each episode, seen in depth alone, to one in colours. "
            f"queried-view: steps {self.held} are seen, that of step {self.asked} is imagined from where the camera then "
            f"is; the nearest of the true ones of {self.among} episodes (recall1), or of all steps of its own (recall1_own).",
        )

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask with ``n`` fresh episodes."""
        began = time.perf_counter()
        model.part(CAMERA.name)
        learn, asked = (recorded(self.world, count, self.steps, _SEED + 2 * asking.seed + part) for part, count in enumerate((self.learn, n)))
        models = {"model": model} | ({} if asking.untrained is None else {"untrained": asking.untrained}) | dict(asking.rivals)
        eyes = {name: places.model_eye(each) for name, each in models.items()}
        eyes["pixels"] = places.principal_eye(learn.rows(slice(0, 200)), 256)
        seen = {name: (eye(learn), eye(asked)) for name, eye in eyes.items()}
        told = _Told(self, asking.seed, asked)
        told.depth(seen, learn)
        told.poses(seen, learn)
        if self.world == "tabletop":
            told.things(seen, learn)
        told.across(seen, {name: places.model_eye(each, depth=True) for name, each in models.items()})
        told.elsewhere(models, seen)
        seconds = time.perf_counter() - began
        return Answer(tuple(replace(result, seconds=seconds) for result in told.results))


class _Told:
    """The answers to one run's questions, as they come in."""

    def __init__(self, protocol: Places, seed: int, asked: Clip) -> None:
        self.protocol, self.seed, self.asked = protocol, seed, asked
        self.results: list[Result] = []

    def depth(self, seen: Mapping[str, tuple[Tensor, Tensor]], learn: Clip) -> None:
        """Depth from colours: every third step."""
        third = slice(0, None, 3)
        truth, wanted = (places.coarse_depth(clip)[:, third].flatten(0, 1).nan_to_num(0.0) for clip in (learn, self.asked))
        clusters = np.repeat(np.arange(len(self.asked)), len(wanted) // len(self.asked))
        said = {
            name: places.read_ridge(*(each[:, third].flatten(0, 1) if k != 1 else truth for k, each in ((0, one), (1, one), (2, other)))).clamp_min(0.05)
            for name, (one, other) in seen.items()
        }
        said["mean"] = truth.mean(0).expand_as(wanted)
        off = {name: (each - wanted).square().mean(1).numpy() for name, each in said.items()}
        self._add("depth-from-rgb", "rmse", off, "m", clusters, np.sqrt)
        off = {name: ((each - wanted).abs() / wanted.clamp_min(0.05)).mean(1).numpy() for name, each in said.items()}
        self._add("depth-from-rgb", "absrel", off, "share", clusters)
        near = {name: (torch.maximum(each / wanted, wanted / each) < 1.25).double().mean(1).numpy() for name, each in said.items()}
        self._add("depth-from-rgb", "delta1", near, "share", clusters)

    def poses(self, seen: Mapping[str, tuple[Tensor, Tensor]], learn: Clip) -> None:
        """The pose of one view from another, and the way that these make."""
        rng, protocol = np.random.default_rng(self.seed), self.protocol
        chosen = torch.from_numpy(places.pairs(len(learn), learn.steps, protocol.apart, 40 * len(learn), rng))
        tested = torch.from_numpy(places.pairs(len(self.asked), self.asked.steps, protocol.apart, 10 * len(self.asked), rng))
        row, gap = torch.arange(len(self.asked)).repeat_interleave(self.asked.steps - 1), torch.arange(self.asked.steps - 1)
        along = torch.stack([row, gap.repeat(len(self.asked)), gap.repeat(len(self.asked)) + 1], 1)
        truth, wanted, steps = _between(learn, chosen), _between(self.asked, tested), _between(self.asked, along)
        turned, direction, metres, away = {}, {}, {}, {}
        went = places.walked(steps.unflatten(0, (len(self.asked), -1)))
        for name, each in {**seen, "mean": None}.items():
            numbers = _numbers(truth)
            if each is None:
                said = numbers.mean(0).expand(len(tested) + len(along), -1)
            else:
                ask = torch.cat([_two(each[1], tested), _two(each[1], along)])
                said = places.read_network(_two(each[0], chosen), numbers, ask, self.seed, protocol.probe_steps)
            pose = _pose(said)
            turned[name], direction[name], metres[name] = places.pose_errors(pose[: len(tested)], wanted)
            path = places.walked(pose[len(tested) :].unflatten(0, (len(self.asked), -1)))
            away[name] = (path - went).square().sum(-1).mean(1).numpy()
        clusters = tested[:, 0].numpy()
        for most in _ANGLES:
            self._add("relative-pose", f"auc{most}", _each(direction, lambda off: places.under(off, most)), "share", clusters)
        self._add("relative-pose", "rotation", _each(turned, lambda off: off), "degrees", clusters)
        self._add("relative-pose", "translation", _each(metres, lambda off: off), "m", clusters)
        self._add("ego-motion", "ate", away, "m", np.arange(len(self.asked)), np.sqrt)

    def things(self, seen: Mapping[str, tuple[Tensor, Tensor]], learn: Clip) -> None:
        """Where the target is (camera axes), how fast it moves, which way it faces: steps in which it can be seen."""
        truth, wanted = _target(learn), _target(self.asked)
        rows, asks = truth.pop("seen"), wanted.pop("seen")
        said: dict[str, Tensor] = {}
        for name, (one, other) in seen.items():
            features, ask = (_three(each)[which] for each, which in ((one, rows), (other, asks)))
            answers = torch.cat([each[rows] for each in truth.values()], 1)
            said[name] = places.read_network(features, answers, ask, self.seed, 2 * self.protocol.probe_steps)
        first, n = 0, int(asks.sum())
        for name, numbers in wanted.items():
            columns, true = slice(first, first + numbers.shape[-1]), numbers[asks].double().numpy()
            first = columns.stop
            found = {}
            for who, each in said.items():
                rng = np.random.default_rng(self.seed)
                found[who] = bootstrap_r2(each[:, columns].double().numpy(), true, rng)
            if name == "yaw":
                found = {who: _correlation(each[:, columns].double().numpy(), true, self.seed) for who, each in said.items()}
            self._keep(name, "r" if name == "yaw" else "r2", found, "", n, f"bootstrap over {n} views, 95 %")

    def across(self, seen: Mapping[str, tuple[Tensor, Tensor]], depths: Mapping[str, Eye]) -> None:
        """Which of many views in depth is the one in colours?"""
        step = self.asked.steps // 2
        there = self.asked.between(step, step + 1)
        first = {name: places.ranked_first(seen[name][1][:, step], eye(there)[:, 0], self.protocol.among) for name, eye in depths.items()}
        grey, dark = places.pixels(there)[:, 0].unflatten(1, (3, -1)).mean(1), -places.coarse_depth(there)[:, 0].nan_to_num(0.0)
        first["pixels"] = places.ranked_first(_standard(grey), _standard(dark), self.protocol.among)
        self._add("cross-modal", "recall1", _each(first, lambda hit: hit), "share", np.arange(len(self.asked)))

    def elsewhere(self, models: Mapping[str, WorldModel], seen: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Which of many views is the one that is imagined?"""
        protocol, held = self.protocol, list(self.protocol.held)
        went = geometry.relative(self._pose(held[-1]), self._pose(protocol.asked))
        moved = (went[:, :3, 3].norm(dim=-1) > 0.1) | (torch.rad2deg(geometry.angle(went[:, :3, :3])) > 5)
        step = torch.stack([geometry.to_motion(geometry.relative(self._pose(a), self._pose(b))) for a, b in zip(held, [*held[1:], protocol.asked], strict=True)], 1)
        first, own = {}, {}
        for name in [*models, "pixels"]:
            features = seen[name][1]
            said = features[:, held[-1]]
            if name in models and models[name].part(CAMERA.name) is not None:
                said = _imagined(models[name], features[:, held], step)
            rows = {"": said, "-last": features[:, held[-1]]} if name == "model" else {"": said}
            for suffix, each in rows.items():
                who = "last-view" if suffix else name
                first[who] = places.ranked_first(each[moved], features[moved, protocol.asked], protocol.among)
                own[who] = (torch.cdist(each[moved, None], features[moved])[:, 0].argmin(1) == protocol.asked).double()
        clusters = np.arange(int(moved.sum()))
        self._add("queried-view", "recall1", _each(first, lambda hit: hit), "share", clusters)
        self._add("queried-view", "recall1_own", _each(own, lambda hit: hit), "share", clusters)

    def _pose(self, step: int) -> Tensor:
        assert self.asked.pose is not None
        return self.asked.pose[:, step]

    def _add(self, name, metric, rows, unit, clusters, last=lambda value: value) -> None:
        """A mean with a bootstrap over episodes; ``last`` is done to it and to its bounds."""
        found = {}
        for who, values in rows.items():
            made = bootstrap_mean(values, np.random.default_rng(self.seed), clusters=clusters, method="percentile")
            found[who] = Interval(*(float(last(each)) for each in (made.value, made.low, made.high)))
        episodes = len(np.unique(clusters))
        self._keep(name, metric, found, unit, len(clusters), f"bootstrap over {episodes} episodes, 95 %")

    def _keep(self, name: str, metric: str, found: dict[str, Interval], unit: str, n: int, interval: str) -> None:
        own = found.pop("model")
        self.results.append(
            Result(f"spatial/{name}", metric, own.value, own.low, own.high, n, unit, (self.seed,), interval, found)
        )


def recorded(world: str, episodes: int, steps: int, seed: int) -> Clip:
    """Fresh walks, one in each row, with their truth."""
    rows = []
    for first in range(0, episodes, _TOGETHER):
        count = min(_TOGETHER, episodes - first)
        rows += gym.record(world, count, steps, 1000 * seed + first // _TOGETHER).episodes
    video, depth, pose, truth = (torch.from_numpy(np.stack([np.asarray(getattr(row, name)) for row in rows])) for name in ("video", "depth", "pose", "truth"))
    return Clip(
        world,
        torch.from_numpy(np.stack([row.times for row in rows])),
        video.movedim(-1, 2)[:, :, None],
        depth[:, :, None, None].float(),
        pose=pose.float(),
        intrinsics=torch.from_numpy(np.stack([row.intrinsics for row in rows if row.intrinsics is not None])).float(),
        truth=truth.float(),
    )


def _between(clip: Clip, pairs: Tensor) -> Float[Tensor, "pairs 4 4"]:
    assert clip.pose is not None
    return geometry.relative(clip.pose[pairs[:, 0], pairs[:, 1]], clip.pose[pairs[:, 0], pairs[:, 2]])


def _two(seen: Tensor, pairs: Tensor) -> Tensor:
    return torch.cat([seen[pairs[:, 0], pairs[:, 1]], seen[pairs[:, 0], pairs[:, 2]]], 1)


def _three(seen: Tensor) -> Tensor:
    """Each step's features beside those of the two steps before it."""
    return torch.cat([seen[:, :-2], seen[:, 1:-1], seen[:, 2:]], -1)


def _numbers(pose: Tensor) -> Float[Tensor, "n 9"]:
    return torch.cat([geometry.to_six(pose[:, :3, :3]), pose[:, :3, 3]], 1)


def _pose(numbers: Tensor) -> Float[Tensor, "n 4 4"]:
    return geometry.assemble(geometry.from_six(numbers[:, :6]), numbers[:, 6:])


def _target(clip: Clip) -> dict[str, Tensor]:
    """The truth of the target in the camera's axes from the third step on, and whether it can be seen."""
    assert clip.truth is not None
    assert clip.pose is not None
    truth, pose = clip.truth[:, 2:], clip.pose[:, 2:]
    back = geometry.inverse(pose)
    yaw = truth[..., 7]
    facing = torch.stack([yaw.cos(), yaw.sin(), torch.zeros_like(yaw)], -1)
    along = (back[..., :3, :3] @ facing[..., None])[..., 0][..., [0, 2]]
    return {
        "position": geometry.place(back, truth[..., None, 1:4])[..., 0, :],
        "velocity": (back[..., :3, :3] @ truth[..., 4:7, None])[..., 0],
        "yaw": torch.nn.functional.normalize(along, dim=-1),
        "seen": truth[..., 8] >= _VISIBLE,
    }


def _correlation(said: np.ndarray, true: np.ndarray, seed: int) -> Interval:
    """Pearson's r, mean over columns, with a percentile bootstrap over rows."""
    rng, n = np.random.default_rng(seed), len(true)

    def r(rows: np.ndarray) -> float:
        return float(np.mean([np.corrcoef(said[rows, k], true[rows, k])[0, 1] for k in range(true.shape[1])]))

    drawn = [r(rng.integers(n, size=n)) for _ in range(300)]
    value = r(np.arange(n))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, min(float(low), value), max(float(high), value))


def _standard(pictures: Tensor) -> Tensor:
    return (pictures - pictures.mean(1, keepdim=True)) / pictures.std(1, keepdim=True).clamp_min(1e-6)


@torch.no_grad()
def _imagined(model: WorldModel, held: Tensor, motions: Tensor) -> Tensor:
    """The view that the last motion leads to, from views that are held and the motions between them."""
    values = held.unflatten(2, model.part(CAMERA.name).latent_shape)
    times = torch.arange(held.shape[1]).expand(len(held), -1) * CAMERA.step_seconds
    belief: Belief = model.believe(None, Latent(values, times), motions[:, :-1], CAMERA.name)
    return model.predict(belief, motions[:, -1:], 1).values[:, 0].flatten(1)


def _each(rows: Mapping[str, Tensor], change) -> dict[str, np.ndarray]:
    return {name: change(row).double().numpy() for name, row in rows.items()}


MAZE = Places(maze.NAME, apart=2, held=(0, 1, 2), asked=3)
TABLE = Places("tabletop")
SUITES = (Suite("spatial", ((TABLE, 400),)), Suite("spatial-maze", ((MAZE, 400),)))
