"""What latents of views say of places: depth, poses, things, a view by another sense, a view from elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from ami import geometry
from ami.data.camera import CAMERA
from ami.evaluation import places
from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.places import Eye
from ami.evaluation.statistics import bootstrap_mean
from ami.evaluation.suites import real_places
from ami.types import Clip, Interval, Result, WorldModel
from ami.worlds import gym, maze
from ami.worlds.tabletop import NAME as TABLETOP

_SEED = 8_000_000  # no training draws from so far up: recipes' seeds are small numbers
_OTHERS = 9_000_000  # nor from here: films that teach where the target is
_TOGETHER = 50  # episodes that are recorded at once
_VISIBLE = 8  # px of a thing that is asked about
_ANGLES = (5, 10, 30)  # degrees up to which relative poses are counted
_LEAST = 0.05  # metres: no depth that is read is nearer

Seen = dict[str, tuple[Tensor, Tensor]]  # by each eye: in the episodes to learn from, and in those asked about


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
    alike: float = 0.01  # metres by which depths of two views differ, root mean square, that nobody needs to tell apart
    probe_steps: int = 1500
    prefix: str = "spatial"  # of what its results are called, but for those of things
    things: int = 4000  # films of three steps that teach where the target is, in the world that has one
    things_steps: int = 3000  # with fewer, who reads it well is a matter of the seed

    least = 2  # episodes: intervals are over them

    @property
    def name(self) -> str:
        """What its results are called, all of them."""
        things = ", spatial/(position, velocity, yaw)" if self.world == TABLETOP else ""
        return f"{self.prefix}/(depth-from-rgb, relative-pose, ego-motion, cross-modal, queried-view){things}"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"{self.prefix}: probes learn from {self.learn} episodes of {self.steps} steps of {self.world} and are "
            "asked about fresh ones; encoders see colours alone. Depth of 16 x 16 cells is read by a ridge. How the "
            f"camera moved between two views up to {self.apart} steps apart (AUC of the larger error, of rotation or "
            "direction, where it moved) is said by the model's own measure of it, by a ridge on that or by a network "
            "of two hidden layers that is told that too, whoever has the best AUC on the last fifth of what they learn "
            "from.",
            f"cross-modal: the nearest of {self.among} views, one an episode, seen in depth alone, to one in colours "
            f"(recall1); and of those whose depth in 16 x 16 cells no other view has to {self.alike:g} m "
            "(recall1_distinct). "
            f"queried-view: steps {self.held} are seen and that of step {self.asked} is imagined, where the camera "
            f"moved: the nearest of true ones of {self.among} episodes (recall1), or of all steps of its own "
            "(recall1_own).",
            *((self._on_table,) if self.world == TABLETOP else ()),
        )

    @property
    def _on_table(self) -> str:
        return (
            "position, yaw: where the target is, in the axes of the camera, and which way it faces, read from one view "
            f"by a ridge or an attentive probe with a block, whoever errs less on the last fifth of {self.things:,} "
            "films of three steps that teach both; velocity by a ridge from three views."
        )

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask with ``n`` fresh episodes."""
        began = time.perf_counter()
        model.known(CAMERA.name)
        first = _SEED + 2 * asking.seed
        learn, asked = (
            recorded(self.world, self.learn, self.steps, first),
            recorded(self.world, n, self.steps, first + 1),
        )
        rivals = {} if asking.untrained is None else {"untrained": asking.untrained}
        models = {"model": model, **rivals, **asking.rivals}
        eyes = {name: places.model_eye(each) for name, each in models.items()}
        eyes["pixels"] = places.principal_eye(learn.rows(slice(0, 200)), 256)
        seen: Seen = {}
        for done, (name, eye) in enumerate(eyes.items()):
            asking.tell("places", done, len(eyes))
            seen[name] = eye(learn), eye(asked)
        asking.tell("places", len(eyes), len(eyes))
        told = _Told(self, asking.seed, asked)
        told.depth(seen, learn)
        told.poses(seen, learn, models)
        if self.world == TABLETOP:
            told.things(eyes, seen, _cells(models))
        told.across(models, seen)
        told.elsewhere(models, seen)
        seconds = time.perf_counter() - began
        return Answer(tuple(replace(result, seconds=seconds) for result in told.results))


class _Told:
    """The answers to one run's questions, as they come in."""

    def __init__(self, protocol: Places, seed: int, asked: Clip) -> None:
        self.protocol, self.seed, self.asked = protocol, seed, asked
        self.results: list[Result] = []

    def depth(self, seen: Seen, learn: Clip) -> None:
        """Depth from colours, of every third step."""

        def third(each: Tensor) -> Tensor:
            return each[:, ::3].flatten(0, 1)

        truth, wanted = (third(places.coarse_depth(clip)) for clip in (learn, self.asked))
        said = {
            name: places.read_ridge(third(one), truth, third(other)).clamp_min(_LEAST)
            for name, (one, other) in seen.items()
        }
        said["mean"] = truth.mean(0).expand_as(wanted)
        clusters = np.repeat(np.arange(len(self.asked)), len(wanted) // len(self.asked))
        for metric, unit, last, measure in (
            ("rmse", "m", math.sqrt, lambda each: (each - wanted).square()),
            ("absrel", "share", float, lambda each: (each - wanted).abs() / wanted),
            ("delta1", "share", float, lambda each: (torch.maximum(each / wanted, wanted / each) < 1.25).double()),
        ):
            rows = {name: measure(each).mean(1) for name, each in said.items()}
            self._add("depth-from-rgb", metric, rows, unit, clusters, last)

    def poses(self, seen: Seen, learn: Clip, models: Mapping[str, WorldModel]) -> None:
        """The pose of one view from another, and the way that these make."""
        rng, protocol, count = np.random.default_rng(self.seed), self.protocol, len(self.asked)
        chosen = places.pairs(learn, protocol.apart, 40 * len(learn), rng)
        tested = places.pairs(self.asked, protocol.apart, 10 * count, rng)
        gaps = torch.arange(self.asked.steps - 1).repeat(count)
        along = torch.stack([torch.arange(count).repeat_interleave(self.asked.steps - 1), gaps, gaps + 1], 1)
        numbers, wanted = _numbers(places.between(learn, chosen)), places.between(self.asked, tested)
        went = places.walked(places.between(self.asked, along).unflatten(0, (count, -1)))
        said = {"mean": numbers.mean(0).expand(len(tested) + len(along), -1)}
        ask, cells = torch.cat([tested, along]), _cells(models)
        for name, (one, other) in seen.items():
            count_of = cells.get(name, 1)
            features = _two(one, chosen, count_of), _two(other, ask, count_of)
            own = [
                places.measured(models[name], *each) if name in models else None
                for each in ((one, chosen), (other, ask))
            ]
            said[name] = self._best_pose(features, own, numbers, chosen[:, 0] >= len(learn) * 4 // 5)
        pose = {name: _pose(each) for name, each in said.items()}
        off = {name: places.pose_errors(each[: len(tested)], wanted) for name, each in pose.items()}
        clusters = tested[:, 0].numpy()
        for most in _ANGLES:
            rows = {name: places.under(each.worst, most) for name, each in off.items()}
            self._add("relative-pose", f"auc{most}", rows, "share", clusters)
        self._add("relative-pose", "rotation", {name: each.turned for name, each in off.items()}, "degrees", clusters)
        self._add("relative-pose", "translation", {name: each.metres for name, each in off.items()}, "m", clusters)
        ways = {name: places.walked(each[len(tested) :].unflatten(0, (count, -1))) for name, each in pose.items()}
        away = {name: (way - went).square().sum(-1).mean(1) for name, way in ways.items()}
        self._add("ego-motion", "ate", away, "m", np.arange(count), math.sqrt)

    def _best_pose(
        self, features: tuple[Tensor, Tensor], own: Sequence[Tensor | None], numbers: Tensor, held: Tensor
    ) -> Tensor:
        """The numbers of each pose asked about, by whoever reads them best."""
        network = partial(places.read_network, seed=self.seed, steps=self.protocol.probe_steps)
        learned, asked = own
        if learned is None or asked is None:
            return network(features[0][~held], numbers[~held], features[1])
        measures = _numbers(learned), _numbers(asked)
        beside = (torch.cat([one, other], 1) for one, other in zip(features, measures, strict=True))
        ways = [
            places.Way(*measures, lambda _, __, said: said),
            places.Way(*measures, places.read_ridge),
            places.Way(next(beside), next(beside), network),
        ]
        return places.read_best(ways, numbers, held, [slice(None)], _missed)

    def things(self, eyes: Mapping[str, Eye], seen: Seen, cells: Mapping[str, int]) -> None:
        """Where the target is (camera axes), how fast it moves, which way it faces: views in which it can be seen."""
        protocol = self.protocol
        few = recorded(protocol.world, protocol.things, 3, _OTHERS + self.seed)
        (truth, rows), (wanted, asks) = _target(few, 0), _target(self.asked, 2)
        answers = torch.cat([truth["position"], truth["yaw"]], -1)[rows]
        held = rows.nonzero()[:, 0] >= protocol.things * 4 // 5
        attentive = partial(places.read_attentive, seed=self.seed, steps=protocol.things_steps, blocks=1)
        said: dict[str, dict[str, Tensor]] = {name: {} for name in wanted}
        for name, eye in eyes.items():
            one, other = eye(few), seen[name][1]
            features = one[rows], other[:, 2:][asks]
            tokens = (each.unflatten(1, (cells.get(name, 1), -1)) for each in features)
            ways = [places.Way(*features, places.read_ridge), places.Way(next(tokens), next(tokens), attentive)]
            best = places.read_best(ways, answers, held, [slice(0, 3), slice(3, 5)])
            said["position"][name], said["yaw"][name] = best[:, :3], best[:, 3:]
            last = rows[:, 2]
            moves = truth["velocity"][:, 2][last]
            said["velocity"][name] = places.read_ridge(_three(one)[:, 0][last], moves, _three(other)[asks])
        clusters = asks.nonzero()[:, 0].numpy()
        for name, numbers in wanted.items():
            true = numbers[asks].double().numpy()
            measure = places.correlation if name == "yaw" else places.explained
            found = {
                who: measure(each.double().numpy(), true, clusters, np.random.default_rng(self.seed))
                for who, each in said[name].items()
            }
            self._keep(f"spatial/{name}", "r" if name == "yaw" else "r2", found, "", len(true), clusters)

    def across(self, models: Mapping[str, WorldModel], seen: Seen) -> None:
        """Which of many views in depth is the one in colours?"""
        step, among = self.asked.steps // 2, self.protocol.among
        there = self.asked.between(step, step + 1)
        first = {}
        for name, model in models.items():
            both = seen[name][1][:, step], places.model_eye(model, depth=True)(there)[:, 0]
            one, other = (places.compared(model, each) for each in both)
            first[name] = places.ranked_first(one, other, among)
        grey, far = places.pixels(there)[:, 0].unflatten(1, (3, -1)).mean(1), places.coarse_depth(there)[:, 0]
        first["pixels"] = places.ranked_first(places.standard(grey), places.standard(-far), among)
        self._add("cross-modal", "recall1", first, "share", np.arange(len(self.asked)))
        alone = places.alone(places.coarse_depth(there)[:, 0], self.protocol.alike)
        if alone.any():
            rows = {name: each[alone] for name, each in first.items()}
            self._add("cross-modal", "recall1_distinct", rows, "share", np.arange(int(alone.sum())))

    def elsewhere(self, models: Mapping[str, WorldModel], seen: Seen) -> None:
        """Which of many views is the one that is imagined? Of walks in which the camera moves."""
        protocol, pose = self.protocol, self.asked.pose
        assert pose is not None
        steps = [*protocol.held, protocol.asked]
        motions = geometry.to_motion(geometry.relative(pose[:, steps[:-1]], pose[:, steps[1:]]))
        moved = places.moved(geometry.relative(pose[:, steps[-2]], pose[:, steps[-1]]))
        said = {name: places.imagined(each, seen[name][1][:, steps[:-1]], motions) for name, each in models.items()}
        true = {name: places.compared(each, seen[name][1][moved]) for name, each in models.items()}
        true["pixels"] = seen["pixels"][1][moved]
        guess = {name: places.compared(models[name], each[moved]) for name, each in said.items()}
        guess["pixels"] = true["pixels"][:, steps[-2]]
        guess["last-view"], true["last-view"] = true["model"][:, steps[-2]], true["model"]
        first = {
            name: places.ranked_first(each, true[name][:, protocol.asked], protocol.among)
            for name, each in guess.items()
        }
        own = {
            name: (torch.cdist(each[:, None], true[name])[:, 0].argmin(1) == protocol.asked).double()
            for name, each in guess.items()
        }
        for metric, rows in (("recall1", first), ("recall1_own", own)):
            self._add("queried-view", metric, rows, "share", np.arange(int(moved.sum())))

    def _add(
        self,
        name: str,
        metric: str,
        rows: Mapping[str, Tensor],
        unit: str,
        clusters: np.ndarray,
        last: Callable[[float], float] = float,
    ) -> None:
        """A mean, redrawing episodes; ``last`` is done to it and to its bounds."""
        found = {}
        for who, values in rows.items():
            rng = np.random.default_rng(self.seed)
            made = bootstrap_mean(values.double().numpy(), rng, clusters=clusters, method="percentile")
            found[who] = Interval(last(made.value), last(made.low), last(made.high))
        self._keep(f"{self.protocol.prefix}/{name}", metric, found, unit, len(clusters), clusters)

    def _keep(
        self, name: str, metric: str, found: dict[str, Interval], unit: str, n: int, clusters: np.ndarray
    ) -> None:
        own = found.pop("model")
        how = f"bootstrap over {len(np.unique(clusters))} episodes, 95 %"
        self.results.append(
            Result(
                name,
                metric,
                own.value,
                own.low,
                own.high,
                n,
                unit,
                (self.seed,),
                how,
                found,
            )
        )


def recorded(world: str, episodes: int, steps: int, seed: int) -> Clip:
    """Fresh walks, one in each row, with their truth."""
    rows = []
    for group, first in enumerate(range(0, episodes, _TOGETHER)):
        rows += gym.record(world, min(_TOGETHER, episodes - first), steps, 1000 * seed + group).episodes
    held = {
        name: torch.from_numpy(np.stack([getattr(row, name) for row in rows])).float()
        for name in ("depth", "pose", "intrinsics", "truth")
    }
    video = torch.from_numpy(np.stack([row.video for row in rows])).movedim(-1, 2)[:, :, None]
    times = torch.from_numpy(np.stack([row.times for row in rows]))
    return Clip(world, times, video, **{**held, "depth": held["depth"][:, :, None, None]})


def _two(seen: Tensor, pairs: Tensor, cells: int) -> Float[Tensor, "pairs feature"]:
    """Both views, and how well each cell of one fits each of the other."""
    here, there = (seen[pairs[:, 0], pairs[:, step]] for step in (1, 2))
    one, other = (each.unflatten(1, (cells, -1)) for each in (here, there))
    fits = one @ other.mT / one.shape[2] ** 0.5
    return torch.cat([here, there, fits.flatten(1)], 1)


def _cells(models: Mapping[str, WorldModel]) -> dict[str, int]:
    return {name: each.part(CAMERA.name).latent_shape[0] for name, each in models.items()}


def _three(seen: Tensor) -> Tensor:
    """Each step's features beside those of the two steps before it."""
    return torch.cat([seen[:, :-2], seen[:, 1:-1], seen[:, 2:]], -1)


def _numbers(pose: Tensor) -> Float[Tensor, "n 9"]:
    return torch.cat([geometry.to_six(pose[:, :3, :3]), pose[:, :3, 3]], 1)


def _pose(numbers: Tensor) -> Float[Tensor, "n 4 4"]:
    return geometry.assemble(geometry.from_six(numbers[:, :6]), numbers[:, 6:])


def _missed(said: Float[Tensor, "n 9"], true: Float[Tensor, "n 9"]) -> Float[Tensor, "n 1"]:
    """What each pose lacks of the area under the curve."""
    return 1 - places.under(places.pose_errors(_pose(said), _pose(true)).worst, _ANGLES[-1])[:, None]


def _target(clip: Clip, first: int) -> tuple[dict[str, Tensor], Bool[Tensor, "rows steps"]]:
    """The truth of the target in the camera's axes from step ``first`` on, and where it can be seen."""
    assert clip.truth is not None
    assert clip.pose is not None
    truth, back = clip.truth[:, first:], geometry.inverse(clip.pose[:, first:])
    yaw = truth[..., 7]
    faces = torch.stack([yaw.cos(), yaw.sin(), torch.zeros_like(yaw)], -1)

    def turned(ways: Tensor) -> Tensor:
        return (back[..., :3, :3] @ ways[..., None])[..., 0]

    found = {
        "position": geometry.place(back, truth[..., None, 1:4])[..., 0, :],
        "velocity": turned(truth[..., 4:7]),
        "yaw": functional.normalize(turned(faces)[..., [0, 2]], dim=-1),
    }
    return found, truth[..., 8] >= _VISIBLE


MAZE = Places(maze.NAME, apart=2, held=(0, 1, 2), asked=3)
TABLE = Places(TABLETOP, prefix="tabletop")
_BOTH = ((MAZE, 400), (TABLE, 400))
QUICK = (replace(MAZE, learn=80, among=64, probe_steps=300, prefix="views"), 64)  # for whoever has little time
SUITES = (
    Suite("spatial-5", _BOTH),
    Suite("spatial-maze-4", ((MAZE, 400),)),
    Suite("spatial-table-5", ((TABLE, 400),)),
    Suite("spatial-quick-3", (QUICK,)),
    Suite("spatial-5-recorded", (*_BOTH, *real_places.ASKED), real_films=True),
    Suite("spatial-maze-4-recorded", ((MAZE, 400), *real_places.ASKED), real_films=True),
)
