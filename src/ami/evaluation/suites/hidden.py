"""What must be behind that screen, and what if another wind had blown? Hidden causes and counterfactuals, in units."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.data.episodes import Episode, Store
from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.inferring import MOST, PRICE, Ordinary, infer, ordinary
from ami.evaluation.probes import Ridge, best_ridge
from ami.evaluation.statistics import bootstrap_r2, bootstrap_ratio
from ami.evaluation.suites.physics import knows
from ami.reasoning.causes import Explained
from ami.types import Belief, Clip, Interval, Latent, Result, WorldModel
from ami.worlds.alone import MIDDLE, behind_a_screen, in_the_wind
from ami.worlds.violations import EMBODIMENT, TRUTH

_ASKED = {"position": ("a_x", "a_y"), "velocity": ("a_dx", "a_dy"), "drag": ("drag",)}
_CHOOSING = 4  # one in so many of the films that teach chooses the penalty
_APART = 2_000_003
_TOGETHER = 50


class _Found(NamedTuple):
    """Hidden quantities: their truth, and what is read before and after inferring causes."""

    truth: Float[Tensor, "n quantity"]
    before: Float[Tensor, "n quantity"]
    after: Float[Tensor, "n quantity"]


class _Reads(NamedTuple):
    """What is hidden, read from a recurrent state, and what a change that explains more of a film makes of it.

    Who learned to read states as they come misreads those that were changed: what a change along each direction means,
    and what it means for each that is read, is learned from changes.
    """

    state: Ridge
    change: Ridge

    def before(self, belief: Belief) -> Float[Tensor, "rows quantity"]:
        """What a belief says."""
        return self.state(_state(belief))

    def after(self, belief: Belief, change: Float[Tensor, "rows n"]) -> Float[Tensor, "rows quantity"]:
        """What it says with the change that explains what came then."""
        read = self.before(belief)
        return read + self.change(_changes(change, read, self.state))


@dataclass(frozen=True)
class Hidden:
    """A mover is out of sight: where is it, how fast, how much drag; before and after inferring what fits the rest."""

    learn: int = 8000  # films that teach the ridge, at that frame; with 256 of them it knows half as much of drag
    explained: int = 1500  # further films that teach what changes mean
    ahead: int = 8  # steps after the moment, in which it comes out again, that are to be explained
    price: float = 0.01  # of a change by one deviation, in ordinary energy: who knows what changes mean may make more

    least = 2  # episodes: intervals are over them
    able = staticmethod(knows)

    @property
    def name(self) -> str:
        """What its results are called."""
        return "hidden"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"hidden: a mover passes behind a screen and is asked about at the frame at which it is quite hidden, "
            f"{MIDDLE + 1} frames seen; a ridge taught by {self.learn:,} other films at that frame reads the recurrent "
            "state, which is 'filtered'. The value is that and what a second ridge adds, which is told by how much the "
            f"state had to change to explain the {self.ahead} frames that follow (at {self.price:g} of ordinary energy "
            "for a change by one deviation), and that times what was read; "
            f"{self.explained:,} further films taught it what the first left open.",
        )

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask about ``n`` fresh films."""
        began = time.perf_counter()
        self.able(model)
        rng = np.random.default_rng([_APART + asking.seed, 1])
        rows = {"model": model} | ({} if asking.untrained is None else {"untrained": asking.untrained})
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            usual = _store(Path(folder) / "films", behind_a_screen(MOST, rng))
            known = {who: ordinary(each, usual, MIDDLE + 1, self.ahead, "recurrent") for who, each in rows.items()}
            read = self._taught(rows, known, rng, asking)
            told: dict[str, list[tuple[Tensor, ...]]] = {who: [] for who in rows}
            for done, count in _lots(n):
                asking.tell("inferring what is hidden", done, n)
                clip = _clip(behind_a_screen(count, rng), MIDDLE + 1 + self.ahead)
                for who, each in rows.items():
                    belief, found = _before_and_after(each, clip, known[who], self.price)
                    said = read[who].before(belief), read[who].after(belief, found.change)
                    told[who].append((_truth(clip), *said))
        answers = {who: _Found(*(torch.cat(part) for part in zip(*parts, strict=True))) for who, parts in told.items()}
        seconds = time.perf_counter() - began
        return Answer(tuple(self._result(name, answers, asking.seed, seconds) for name in _ASKED))

    def _taught(
        self,
        rows: Mapping[str, WorldModel],
        known: Mapping[str, Ordinary],
        rng: np.random.Generator,
        asking: Asking,
    ) -> dict[str, _Reads]:
        """Who reads each model, taught by the same films."""
        states, taught = self._states(rows, rng, asking)
        read = {who: _ridge(each, taught) for who, each in states.items()}
        changes: dict[str, list[Tensor]] = {who: [] for who in rows}
        left: dict[str, list[Tensor]] = {who: [] for who in rows}
        for done, count in _lots(self.explained):
            asking.tell("learning what changes mean", done, self.explained)
            clip = _clip(behind_a_screen(count, rng), MIDDLE + 1 + self.ahead)
            for who, model in rows.items():
                belief, found = _before_and_after(model, clip, known[who], self.price)
                said = read[who](_state(belief))
                changes[who].append(_changes(found.change, said, read[who]))
                left[who].append(_truth(clip) - said)
        return {who: _Reads(read[who], _ridge(torch.cat(changes[who]), torch.cat(left[who]))) for who in rows}

    def _states(
        self, rows: Mapping[str, WorldModel], rng: np.random.Generator, asking: Asking
    ) -> tuple[dict[str, Float[Tensor, "film feature"]], Float[Tensor, "film quantity"]]:
        """What each model carries along at the frame that is asked about, and the truth."""
        states: dict[str, list[Tensor]] = {who: [] for who in rows}
        truth = []
        for done, count in _lots(self.learn):
            asking.tell("learning to read what is hidden", done, self.learn)
            clip = _clip(behind_a_screen(count, rng), MIDDLE + 1)
            for who, model in rows.items():
                states[who].append(_state(model.believe(None, model.encode(clip), clip.actions, clip.embodiment)))
            truth.append(_truth(clip))
        return {who: torch.cat(each) for who, each in states.items()}, torch.cat(truth)

    def _result(self, name: str, found: Mapping[str, _Found], seed: int, seconds: float) -> Result:
        own = _r2(found["model"].truth, found["model"].after, name, seed)
        beside = {"filtered": _r2(found["model"].truth, found["model"].before, name, seed)}
        if "untrained" in found:
            beside["untrained"] = _r2(found["untrained"].truth, found["untrained"].after, name, seed)
        count = len(found["model"].truth)
        return Result(
            f"hidden/{name}",
            "r2",
            own.value,
            own.low,
            own.high,
            count,
            "share",
            (seed,),
            f"bootstrap over {count} films, 95 %",
            beside,
            seconds=seconds,
        )


def _before_and_after(model: WorldModel, clip: Clip, known: Ordinary, price: float = PRICE) -> tuple[Belief, Explained]:
    """What is believed after ``MIDDLE`` steps, and the causes that explain the steps that follow."""
    assert clip.actions is not None
    seen, past = model.encode(clip), MIDDLE + 1
    before = model.believe(None, seen.between(0, past), clip.actions[:, : past - 1], clip.embodiment)
    return before, infer(model, before, clip.actions[:, past - 1 :], seen.between(past, clip.steps), known, price)


def _changes(
    change: Float[Tensor, "rows n"], read: Float[Tensor, "rows quantity"], state: Ridge
) -> Float[Tensor, "rows feature"]:
    """How much was changed, and that times what was read, less its mean: elsewhere the same change may mean more."""
    apart = read - state.constant
    return torch.cat([change, (change[:, :, None] * apart[:, None]).flatten(1)], 1)


def _state(belief: Belief) -> Float[Tensor, "rows feature"]:
    if belief.recurrent is None:
        raise ValueError("what is hidden is read from what a model carries along, and this one carries nothing")
    return belief.recurrent.flatten(1)


def _truth(clip: Clip) -> Float[Tensor, "rows quantity"]:
    """All that is asked, at the frame at which the mover is hidden."""
    assert clip.truth is not None
    return clip.truth[:, MIDDLE, [TRUTH.index(column) for columns in _ASKED.values() for column in columns]]


@dataclass(frozen=True)
class Counterfactual:
    """Another wind: is what is imagined then as near to the simulator run again as what is imagined of the facts?"""

    learn: int = 800  # films that teach where the mover is, from every step after that moment
    ahead: int = 8

    least = 2  # episodes: intervals are over them
    able = staticmethod(knows)

    @property
    def name(self) -> str:
        """What its results are called."""
        return "counterfactual"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"counterfactual: {MIDDLE + 1} frames are seen, then a gust blows. Imagined is the film with another gust, "
            f"{self.ahead} frames of it, by a belief that explains the film as it was; a ridge on latents, taught by "
            f"{self.learn:,} other films as perceived and as imagined, reads where the mover is, and the simulator run "
            "again is the truth. error_ratio: the mean distance over that of the film with its own gust, imagined "
            "before any of it was seen. 'filtered' explains nothing, 'one-frame' has seen one frame.",
        )

    @torch.no_grad()
    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask about ``n`` fresh films."""
        began, past = time.perf_counter(), MIDDLE + 1
        self.able(model)
        rng = np.random.default_rng([_APART + asking.seed, 2])
        read = self._taught(model, rng)
        far: dict[str, list[Tensor]] = {"factual": [], "other": [], "filtered": [], "one-frame": []}
        with tempfile.TemporaryDirectory() as folder:
            usual = _store(Path(folder) / "films", in_the_wind(MOST, rng)[0])
            known = ordinary(model, usual, past, self.ahead, "recurrent")
            for done, count in _lots(n):
                asking.tell("imagining another wind", done, n)
                fact, other = (_clip(films, past + self.ahead) for films in in_the_wind(count, rng))
                for name, error in self._errors(model, fact, other, known, read).items():
                    far[name].append(error)
        asking.tell("imagining another wind", n, n)
        errors = {name: torch.cat(parts).numpy(force=True) for name, parts in far.items()}

        def ratio(who: str) -> Interval:
            return bootstrap_ratio(errors[who], errors["factual"], np.random.default_rng(asking.seed))

        own = ratio("other")
        return Answer(
            (
                Result(
                    "counterfactual/position",
                    "error_ratio",
                    own.value,
                    own.low,
                    own.high,
                    n,
                    "times the factual error",
                    (asking.seed,),
                    f"bootstrap over {n} films, 95 %",
                    {name: ratio(name) for name in ("filtered", "one-frame", "factual")},
                    seconds=time.perf_counter() - began,
                    details={"factual_error_px": float(errors["factual"].mean())},
                ),
            )
        )

    def _taught(self, model: WorldModel, rng: np.random.Generator) -> Ridge:
        """Where the mover is, from the latent of a step in which the wind blows or has blown, perceived or imagined.

        What is imagined is less sharp: who learned to read what is perceived alone misreads it by twice as much.
        """
        seen, imagined, truth = [], [], []
        for _, count in _lots(self.learn):
            clip = _clip(in_the_wind(count, rng)[0], MIDDLE + 1 + self.ahead)
            assert clip.actions is not None
            latents, done = model.encode(clip), clip.actions
            belief = model.believe(None, latents.between(0, MIDDLE + 1), done[:, :MIDDLE], clip.embodiment)
            seen.append(_rows(latents.between(MIDDLE + 1, clip.steps)))
            imagined.append(_rows(model.predict(belief, done[:, MIDDLE:], self.ahead)))
            truth.append(_way(clip).flatten(0, 1))
        order = torch.arange(2 * sum(map(len, truth))).view(2, -1).T.flatten()  # a step's two rows are neighbours
        return _ridge(torch.cat([*seen, *imagined])[order], torch.cat([*truth, *truth])[order])

    def _errors(
        self, model: WorldModel, fact: Clip, other: Clip, known: Ordinary, read: Ridge
    ) -> dict[str, Float[Tensor, "rows"]]:
        assert fact.actions is not None
        belief, explained = _before_and_after(model, fact, known)
        naive = model.believe(None, model.encode(fact.between(MIDDLE, MIDDLE + 1)), None, fact.embodiment)

        def error(held: Belief, clip: Clip) -> Float[Tensor, "rows"]:
            assert clip.actions is not None
            imagined, true = model.predict(held, clip.actions[:, MIDDLE:], self.ahead), _way(clip)
            return (read(_rows(imagined)).view_as(true) - true).norm(dim=-1).mean(1)

        return {
            "factual": error(belief, fact),
            "other": error(explained.belief, other),
            "filtered": error(belief, other),
            "one-frame": error(naive, other),
        }


def _rows(steps: Latent) -> Float[Tensor, "rows feature"]:
    """Every step by itself."""
    return steps.values.flatten(2).flatten(0, 1)


def _way(clip: Clip) -> Float[Tensor, "batch ahead 2"]:
    """Where the mover is after the moment that is asked about."""
    assert clip.truth is not None
    return clip.truth[:, MIDDLE + 1 :, [TRUTH.index(column) for column in _ASKED["position"]]]


def _ridge(features: Float[Tensor, "n feature"], truth: Float[Tensor, "n quantity"]) -> Ridge:
    choose = torch.arange(len(truth)) * _CHOOSING // len(truth) == 0  # steps of one film are on one side
    return best_ridge(features, truth, choose, ~choose)


def _lots(count: int) -> Iterator[tuple[int, int]]:
    """How many are done, and how many come next."""
    for first in range(0, count, _TOGETHER):
        yield first, min(_TOGETHER, count - first)


def _store(folder: Path, films: Sequence[Episode]) -> Store:
    store = Store.create(folder, EMBODIMENT, TRUTH)
    store.append(films)
    return store


def _clip(films: Sequence[Episode], steps: int) -> Clip:
    """Their first steps, a row each."""
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder) / "films", films)
        return store.clips(np.stack([np.arange(len(films)), np.zeros(len(films), int)], 1), steps)


def _r2(truth: Float[Tensor, "n quantity"], read: Float[Tensor, "n quantity"], name: str, seed: int) -> Interval:
    """The share of the variance of what is called so that is accounted for, the mean over its columns."""
    first = [column for columns in _ASKED.values() for column in columns].index(_ASKED[name][0])
    columns = slice(first, first + len(_ASKED[name]))
    guess, true = (each[:, columns].double().numpy(force=True) for each in (read, truth))
    return bootstrap_r2(guess, true, np.random.default_rng(seed))


ASKED = ((Hidden(), 300), (Counterfactual(), 300))
SUITES = (Suite("hidden-3", ASKED),)
