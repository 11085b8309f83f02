"""What must be behind that screen, and what if another wind had blown? Hidden causes and counterfactuals, in units."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.data.episodes import Episode, Store
from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.inferring import Found, Ordinary, infer, ordinary
from ami.evaluation.reading import fit_readout_on
from ami.evaluation.statistics import bootstrap_r2, bootstrap_ratio
from ami.evaluation.suites.physics import knows
from ami.reasoning.readout import Readout
from ami.types import Belief, Clip, Interval, Result, WorldModel
from ami.worlds.alone import MIDDLE, behind_a_screen, in_the_wind
from ami.worlds.violations import EMBODIMENT, TRUTH

_ASKED = {"position": ("a_x", "a_y"), "velocity": ("a_dx", "a_dy"), "drag": ("drag",)}
_UNITS = {"position": "px", "velocity": "px per frame", "drag": "share of the speed a frame"}
_LEARN = 256  # films to learn read-outs from, as many to measure their error
_APART = 2_000_003
_TOGETHER = 50


@dataclass(frozen=True)
class Hidden:
    """A mover is out of sight: where is it, how fast, how much drag; before and after inferring what fits the rest."""

    learn: int = _LEARN
    ahead: int = 8  # steps after the moment, in which it comes out again, that are to be explained

    @property
    def name(self) -> str:
        """What its results are called."""
        return "hidden"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"hidden: a mover passes behind a screen and is asked about at the frame at which it is quite hidden, "
            f"{MIDDLE + 1} frames seen; a ridge reads the recurrent state. 'filtered' is the state as it was then, the "
            f"value after it was changed to explain the {self.ahead} frames that follow.",
        )

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask about ``n`` fresh films."""
        began = time.perf_counter()
        knows(model)
        rng = np.random.default_rng([_APART + asking.seed, 1])
        with tempfile.TemporaryDirectory() as folder:
            store = _store(Path(folder) / "learn", behind_a_screen(2 * self.learn, rng))
            asked = _store(Path(folder) / "ask", behind_a_screen(n, rng))
            rows = {"model": model} | ({} if asking.untrained is None else {"untrained": asking.untrained})
            found = {who: self._found(each, store, asked, asking) for who, each in rows.items()}
        seconds = time.perf_counter() - began
        return Answer(tuple(self._result(name, found, asking.seed, seconds) for name in _ASKED))

    @torch.no_grad()
    def _found(self, model: WorldModel, store: Store, asked: Store, asking: Asking) -> dict[str, Found]:
        past = MIDDLE + 1
        known = ordinary(model, store, past, self.ahead, "recurrent")
        kept = {
            name: fit_readout_on(model, store, columns, unit=_UNITS[name], features="recurrent")
            for name, columns in _ASKED.items()
        }
        told: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in kept}
        for first in range(0, len(asked), _TOGETHER):
            asking.tell("inferring what is hidden", first, len(asked))
            clip = _clips(asked, first, past + self.ahead)
            assert clip.truth is not None
            assert clip.actions is not None
            seen = model.encode(clip)
            before = model.believe(None, seen.between(0, past), clip.actions[:, : past - 1], clip.embodiment)
            after = infer(model, before, clip.actions[:, past - 1 :], seen.between(past, clip.steps), known)
            for name, each in kept.items():
                truth = clip.truth[:, MIDDLE, [TRUTH.index(column) for column in _ASKED[name]]]
                told[name].append((truth, *(each.readout(_state(belief)) for belief in (before, after))))
        return {name: Found(*(torch.cat(part) for part in zip(*parts, strict=True))) for name, parts in told.items()}

    def _result(self, name: str, found: dict[str, dict[str, Found]], seed: int, seconds: float) -> Result:
        own = found["model"][name]
        value = _r2(own.truth, own.after, seed)
        beside = {"filtered": _r2(own.truth, own.before, seed)}
        if "untrained" in found:
            bare = found["untrained"][name]
            beside["untrained"] = _r2(bare.truth, bare.after, seed)
        return Result(
            f"hidden/{name}",
            "r2",
            value.value,
            value.low,
            value.high,
            len(own.truth),
            "share",
            (seed,),
            f"bootstrap over {len(own.truth)} films, 95 %",
            beside,
            seconds=seconds,
        )


def _state(belief: Belief) -> Float[Tensor, "rows feature"]:
    assert belief.recurrent is not None, "read-outs were fitted on such states"
    return belief.recurrent.flatten(1)


@dataclass(frozen=True)
class Counterfactual:
    """Another wind: is what is imagined then as near to the simulator run again as what is imagined of the facts?"""

    learn: int = _LEARN
    ahead: int = 8

    @property
    def name(self) -> str:
        """What its results are called."""
        return "counterfactual"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"counterfactual: {MIDDLE + 1} frames are seen, then a gust blows. Imagined is the film with another gust, "
            f"{self.ahead} frames of it, by a belief that explains the film as it was; a ridge on latents reads where "
            "the mover is, and the simulator run again is the truth. error_ratio: the mean distance over that of the "
            "film with its own gust, imagined before any of it was seen. 'filtered' explains nothing, 'one-frame' "
            "has seen one frame.",
        )

    @torch.no_grad()
    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask about ``n`` fresh films."""
        began, past = time.perf_counter(), MIDDLE + 1
        knows(model)
        rng = np.random.default_rng([_APART + asking.seed, 2])
        with tempfile.TemporaryDirectory() as folder:
            store = _store(Path(folder) / "learn", in_the_wind(2 * self.learn, rng)[0])
            so, otherwise = (
                _store(Path(folder) / str(place), films) for place, films in enumerate(in_the_wind(n, rng))
            )
            read = fit_readout_on(model, store, _ASKED["position"], unit="px", features="latent").readout
            known = ordinary(model, store, past, self.ahead, "recurrent")
            far: dict[str, list[Tensor]] = {"factual": [], "other": [], "filtered": [], "one-frame": []}
            for first in range(0, n, _TOGETHER):
                asking.tell("imagining another wind", first, n)
                fact, other = (_clips(each, first, past + self.ahead) for each in (so, otherwise))
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

    def _errors(
        self, model: WorldModel, fact: Clip, other: Clip, known: Ordinary, read: Readout
    ) -> dict[str, Float[Tensor, "rows"]]:
        past = MIDDLE + 1
        seen = model.encode(fact)
        assert fact.actions is not None
        assert other.actions is not None
        assert fact.truth is not None
        assert other.truth is not None
        belief = model.believe(None, seen.between(0, past), fact.actions[:, : past - 1], fact.embodiment)
        explained = infer(model, belief, fact.actions[:, past - 1 :], seen.between(past, fact.steps), known)
        naive = model.believe(None, seen.between(past - 1, past), None, fact.embodiment)

        def error(held: Belief, clip: Clip) -> Float[Tensor, "rows"]:
            assert clip.actions is not None
            assert clip.truth is not None
            imagined = model.predict(held, clip.actions[:, past - 1 :], self.ahead)
            place = read.along(imagined)
            true = clip.truth[:, past:, [TRUTH.index(column) for column in _ASKED["position"]]]
            return (place - true).norm(dim=-1).mean(1)

        return {
            "factual": error(belief, fact),
            "other": error(explained, other),
            "filtered": error(belief, other),
            "one-frame": error(naive, other),
        }


def _store(folder: Path, films: Sequence[Episode]) -> Store:
    store = Store.create(folder, EMBODIMENT, TRUTH)
    store.append(films)
    return store


def _clips(store: Store, first: int, steps: int) -> Clip:
    rows = np.arange(first, min(first + _TOGETHER, len(store)))
    return store.clips(np.stack([rows, np.zeros_like(rows)], 1), steps)


def _r2(truth: Float[Tensor, "n quantity"], read: Float[Tensor, "n quantity"], seed: int) -> Interval:
    """The share of the quantities' variance that is accounted for, the mean over quantities."""
    guess, true = (each.double().numpy(force=True) for each in (read, truth))
    return bootstrap_r2(guess, true, np.random.default_rng(seed))


ASKED = ((Hidden(), 300), (Counterfactual(), 300))
SUITES = (Suite("hidden", ASKED),)
