"""Recorded places, never trained on: is a frame's depth known by its colours, and a view by the views around it?"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ami import geometry
from ami.data.camera import CAMERA
from ami.data.episodes import Store
from ami.evaluation import places
from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.statistics import clopper_pearson
from ami.types import Clip, Interval, Result, WorldModel


@dataclass(frozen=True)
class RealPlaces:
    """Retrieval among the frames of each recording; every frame of every recording is asked about once."""

    held: int = 2  # frames nearest to the one asked about whose views are held

    @property
    def name(self) -> str:
        """What its results are called, all of them."""
        return "real/(rgb-to-depth, queried-view)"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            "real/rgb-to-depth: the nearest of the depth pictures of its recording to a frame seen in colours is its "
            "own (recall1), or is so when of either sense the mean over the recording is taken away, for what is the "
            "same of all frames says nothing (recall1_centred). Pixels: grey against depth, nearer is brighter.",
            f"real/queried-view: the {self.held} frames nearest in place are seen in colours and the view from where "
            "another was taken is imagined; of all frames of the recording, also those, the nearest is that. With "
            "last-view the nearest of those stands in for it, which never hits.",
            "p: the share of all ways to pair the answers of a recording with its questions that hit as often.",
        )

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask about recordings in ``asking.films``, at most ``n`` of them."""
        began = time.perf_counter()
        model.known(CAMERA.name)
        if asking.films is None or not {"video", "depth", "pose"} <= asking.films.fields.keys():
            raise ValueError(
                "real places are asked about with recordings that hold depth and poses; name one with --data"
            )
        models = {"model": model} | ({} if asking.untrained is None else {"untrained": asking.untrained})
        models |= asking.rivals
        clips = [_whole(asking.films, episode) for episode in range(min(n, len(asking.films)))]
        sensed = {who: [_by_senses(each, clip) for clip in clips] for who, each in models.items()}
        sensed["pixels"] = [_pixels_by_senses(clip) for clip in clips]
        known = {who: [_nearest(*each) for each in rows] for who, rows in sensed.items()}
        centred = {who: [_nearest(*map(_centred, each)) for each in rows] for who, rows in sensed.items()}
        found = {who: [self._elsewhere(each, clip) for clip in clips] for who, each in models.items()}
        found["last-view"] = [
            np.array([self._around(clip, asked)[-1] for asked in range(clip.steps)]) for clip in clips
        ]
        seconds = time.perf_counter() - began
        results, notes = [], []
        for name, metric, rows in (
            ("rgb-to-depth", "recall1", known),
            ("rgb-to-depth", "recall1_centred", centred),
            ("queried-view", "recall1", found),
        ):
            results.append(replace(_result(name, metric, rows, asking.seed), seconds=seconds))
            odds = ", ".join(f"{who} p = {chance(each):.2g}" for who, each in rows.items())
            notes.append(f"real/{name} {metric}: {odds}")
        return Answer(tuple(results), notes=tuple(notes))

    def _elsewhere(self, model: WorldModel, clip: Clip) -> Int[np.ndarray, "frames"]:
        """Which frame is nearest to what is imagined from each pose."""
        seen, chosen = places.model_eye(model)(clip)[0], []
        for asked in range(clip.steps):
            held = self._around(clip, asked)
            assert clip.pose is not None
            pose = clip.pose[:, [*held, asked]]
            motions = geometry.to_motion(geometry.relative(pose[:, :-1], pose[:, 1:]))
            off = places.compared(model, seen - places.imagined(model, seen[None, held], motions)[0])
            chosen.append(int(off.square().sum(1).argmin()))
        return np.array(chosen)

    def _around(self, clip: Clip, asked: int) -> list[int]:
        """The frames held, the nearest last."""
        assert clip.pose is not None
        far = (clip.pose[0, :, :3, 3] - clip.pose[0, asked, :3, 3]).norm(dim=-1)
        far[asked] = torch.inf  # another frame may have been taken at the very same place
        return far.argsort(stable=True)[: self.held].flip(0).tolist()


def chance(answers: Sequence[Int[np.ndarray, "frames"]]) -> float:
    """How often pairing at random, within each recording, hits as often as was hit: exact, by rook numbers.

    ``answers`` number for each question the frame that was said; its own number is right. Source: Riordan 1958, "An
    introduction to combinatorial analysis", chapter 7.
    """
    total, hits = np.ones(1), 0
    for said in answers:
        n = len(said)
        rooks = [1]  # in how many ways k questions are paired with what was said of them: whole numbers of any length
        for often in np.bincount(said, minlength=n).tolist():
            rooks = [two + often * one for one, two in zip([0, *rooks], [*rooks, 0], strict=True)]
        ways = [rook * math.factorial(n - j) for j, rook in enumerate(rooks)]  # of pairing so that j questions hit
        exactly = [
            sum((-1) ** (j - k) * math.comb(j, k) * ways[j] for j in range(k, n + 1)) / ways[0] for k in range(n + 1)
        ]
        total = np.convolve(total, exactly)
        hits += int((said == np.arange(n)).sum())
    return float(np.clip(total[hits:].sum(), 0.0, 1.0))


def _whole(store: Store, episode: int) -> Clip:
    return store.clips(np.array([[episode, 0]]), store.episodes[episode].length)


def _by_senses(model: WorldModel, clip: Clip) -> tuple[Tensor, Tensor]:
    """The frames as the model perceives them in colours alone and in depth alone."""
    eyes = places.model_eye(model), places.model_eye(model, depth=True)
    one, other = (places.compared(model, eye(clip)[0]).double() for eye in eyes)
    return one, other


def _pixels_by_senses(clip: Clip) -> tuple[Tensor, Tensor]:
    grey, far = places.pixels(clip)[0].unflatten(1, (3, -1)).mean(1), places.coarse_depth(clip)[0]
    near = -torch.where(far.isnan(), far.nanmean(1, keepdim=True), far)
    return places.standard(grey), places.standard(near)


def _centred(frames: Float[Tensor, "frames feature"]) -> Float[Tensor, "frames feature"]:
    return frames - frames.mean(0)


def _nearest(asked: Float[Tensor, "frames feature"], among: Float[Tensor, "frames feature"]) -> np.ndarray:
    return torch.cdist(asked, among).argmin(1).numpy()


def _result(name: str, metric: str, answers: Mapping[str, Sequence[np.ndarray]], seed: int) -> Result:
    found: dict[str, Interval] = {}
    n = sum(len(said) for said in answers["model"])
    for who, rows in answers.items():
        found[who] = clopper_pearson(int(sum((said == np.arange(len(said))).sum() for said in rows)), n)
    share = len(answers["model"]) / n  # of hits by chance: one in each recording
    found["chance"] = Interval(share, share, share)
    own = found.pop("model")
    how = "Clopper-Pearson 95 %, as if frames were independent"
    return Result(f"real/{name}", metric, own.value, own.low, own.high, n, "share", (seed,), how, found)


ASKED = ((RealPlaces(), 100),)
SUITES = (Suite("real-places-2", ASKED, real_films=True),)
