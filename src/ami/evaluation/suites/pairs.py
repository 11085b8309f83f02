"""Does what cannot be surprise more than its possible twin? One rule, asked of matched films from any source."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ami.evaluation.benchmark import Answer, Asking
from ami.evaluation.strips import Beside
from ami.evaluation.violation import (
    PIXELS,
    Judge,
    Scores,
    Twins,
    alarms,
    lateness,
    miscalibration,
    pairwise,
    share,
    single,
)
from ami.reasoning.rules import Rule, SlidingWindows
from ami.types import Clip, Interval, Result, WorldModel

_SHOWN = ("", "occluded", "occluded/fixed")  # conditions whose first twins are shown, if nobody says or all is still
_CHANCE: Mapping[str, Interval] = {"chance": Interval(0.5, 0.5, 0.5)}


class Source(Protocol):
    """Where matched films come from: frozen settings, like a benchmark's."""

    @property
    def protocol(self) -> tuple[str, ...]:
        """How they are made, a plain sentence each."""
        ...

    def twins(self, model: WorldModel, n: int, asking: Asking) -> Iterable[Twins]:
        """So many pairs as ``n`` means here, as ``model`` watches films; a few at a time, for films are large."""
        ...

    def ordinary(self, model: WorldModel, asking: Asking) -> Iterable[Clip]:
        """Possible films without twins, which tell what is ordinary; none where there are none."""
        ...


@dataclass(frozen=True)
class PairsBenchmark:
    """Each principle and condition by itself, and all films together, by one rule.

    A rule makes numbers of a film's curve of surprise. What needs no model is scored by the same rule, and so is the
    model with fresh weights; ``beside`` are other rules for the same model.
    """

    name: str
    source: Source
    rule: Rule = field(default_factory=SlidingWindows)
    beside: tuple[Rule, ...] = ()
    level: float = 0.95  # of ordinary films, that shall not be called impossible

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            *self.source.protocol,
            *(rule.protocol for rule in (self.rule, *self.beside)),
            "pairwise: how often the impossible twin surprises more; a tie counts as half. auroc: the same of any two "
            "films, each judged alone.",
            f"false_alarms and detected: possible and impossible films that surprise more than {self.level:.0%} of "
            "ordinary ones; where there are no others, half of the possible films are ordinary for the other half.",
            "peak_distance: seconds between the violation and the most surprising step of its film, the median.",
        )

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask about what ``n`` means to the source. ``ValueError`` for a film that is too short for the rule."""
        began = time.perf_counter()
        judges = self._judges(model, asking.untrained)
        heard: dict[str, list[Scores]] = {name: [] for name in judges}
        cells, quadruplets, notes = [], [], []
        strips: dict[str, Beside] = {}
        for twins in self.source.twins(model, n, asking):
            self._check(twins, model.embodiments[twins.possible.embodiment].step_seconds)
            for name, judge in judges.items():
                heard[name].append(judge.scores(twins))
            if len(strips) < asking.strips and twins.condition in _SHOWN and twins.principle not in strips:
                strips[twins.principle] = _shown(twins, judges["model"])
            cells += [twins.cell] * len(twins.quadruplet)
            quadruplets += [f"{twins.cell} {each}" for each in twins.quadruplet]
            notes += [twins.note] * bool(twins.note)
        if not cells:
            raise ValueError(f"{self.name} asks about matched films, and none came; name their folder with --data")
        ordinary = list(self.source.ordinary(model, asking))
        told = _Told(
            np.array(cells),
            np.unique(quadruplets, return_inverse=True)[1],
            {name: Scores.joined(parts) for name, parts in heard.items()},
            {name: judge.alone(ordinary) for name, judge in judges.items()} if ordinary else {},
        )
        results = [
            _result(f"{self.name}/{cell}", "pairwise", told.rows(told.cells == cell), _pairwise, asking.seed)
            for cell in sorted(set(cells))
        ]
        results += self._of_all(told, asking.seed)
        seconds = time.perf_counter() - began
        return Answer(
            tuple(replace(each, seconds=seconds) for each in results),
            tuple(strips.values()),
            notes=tuple(dict.fromkeys(notes)),
        )

    def _judges(self, model: WorldModel, untrained: WorldModel | None) -> dict[str, Judge]:
        def by(rule: Rule, who: WorldModel) -> Judge:
            return Judge(lambda film: rule.curve(who, film), rule)

        judges = {"model": by(self.rule, model)} | {rule.name: by(rule, model) for rule in self.beside}
        if untrained is not None:
            judges["untrained"] = by(self.rule, untrained)
        return judges | {name: Judge(curve, self.rule) for name, curve in PIXELS.items()}

    def _check(self, twins: Twins, step_seconds: float) -> None:
        needed = max(rule.shortest for rule in (self.rule, *self.beside))
        steps = min(twins.possible.steps, twins.impossible.steps)
        if steps < needed:
            raise ValueError(
                f"{self.name} has films of {steps} steps ({twins.cell}, {twins.quadruplet[0]}), and its rule needs "
                f"{needed}, {needed * step_seconds:g} s as this model watches: give longer films"
            )

    def _of_all(self, told: _Told, seed: int) -> Iterator[Result]:
        name, wanted = f"{self.name}/all", round(1 - self.level, 9)
        yield _result(name, "pairwise", told, _pairwise, seed)
        yield _result(name, "auroc", told, _auroc, seed)
        for column, metric in enumerate(("false_alarms", "detected")):
            asked = partial(_alarmed, level=self.level, column=column)
            yield _result(name, metric, told, asked, seed, beside={"ordinary": Interval(wanted, wanted, wanted)})
        if told.ordinary:
            yield _result(name, "calibration_error", told, _calibration, seed, beside={})
        if len(np.unique(told.quadruplet[told.placed])) > 1:
            yield _result(name, "peak_distance", told.rows(told.placed), _late, seed, unit="s", beside={})


def _shown(twins: Twins, judge: Judge) -> Beside:
    """The first pair, with the curves by which it is judged."""
    films = {"possible": twins.possible.rows(slice(0, 1)), "impossible": twins.impossible.rows(slice(0, 1))}
    curves = {name: judge.curve(film)[0].numpy(force=True) for name, film in films.items()}
    steps = min(len(curve) for curve in curves.values())
    pictures = {}
    for name, film in films.items():
        assert film.video is not None
        pictures[name] = film.video[0, :steps, -1].movedim(1, -1).numpy(force=True)
    score = {name: float(judge.rule.paired(judge.curve(film))[0]) for name, film in films.items()}
    told = "the impossible one surprises more" if score["impossible"] > score["possible"] else "it was not told"
    moment = twins.moment[0] if twins.moment else None
    return Beside(
        f"{twins.principle}, {twins.condition}" if twins.condition else twins.principle,
        pictures,
        {name: curve[:steps] for name, curve in curves.items()},
        moment,
        told,
    )


@dataclass(frozen=True)
class _Told:
    """What every judge said of every pair."""

    cells: Shaped[np.ndarray, "pairs"]
    quadruplet: Int[np.ndarray, "pairs"]
    scores: Mapping[str, Scores]
    ordinary: Mapping[str, Float[np.ndarray, "films"]]  # what it said of films without twins, where there are any

    def rows(self, index: Bool[np.ndarray, "pairs"]) -> _Told:
        """Some of the pairs."""
        scores = {name: each.rows(index) for name, each in self.scores.items()}
        return replace(self, cells=self.cells[index], quadruplet=self.quadruplet[index], scores=scores)

    @property
    def placed(self) -> Bool[np.ndarray, "pairs"]:
        """Pairs of which it is known where the violation is."""
        return np.isfinite(self.scores["model"].late)

    @property
    def how(self) -> str:
        """How an interval over quadruplets is made."""
        return f"bootstrap over {len(np.unique(self.quadruplet))} quadruplets, 95 %"


_Asked = Callable[[_Told, str, np.random.Generator], tuple[Interval, str]]  # of what one judge said


def _pairwise(told: _Told, who: str, rng: np.random.Generator) -> tuple[Interval, str]:
    return pairwise(told.scores[who], told.quadruplet, rng)


def _auroc(told: _Told, who: str, rng: np.random.Generator) -> tuple[Interval, str]:
    return single(told.scores[who], told.quadruplet, rng), told.how


def _alarmed(told: _Told, who: str, rng: np.random.Generator, *, level: float, column: int) -> tuple[Interval, str]:
    called = alarms(told.scores[who], told.quadruplet, level, rng, told.ordinary.get(who))
    return share(called[:, column], told.quadruplet, rng), told.how


def _calibration(told: _Told, who: str, rng: np.random.Generator) -> tuple[Interval, str]:
    return miscalibration(told.scores[who], told.quadruplet, told.ordinary[who], rng), told.how


def _late(told: _Told, who: str, rng: np.random.Generator) -> tuple[Interval, str]:
    return lateness(told.scores[who], told.quadruplet, rng), told.how


def _result(
    name: str,
    metric: str,
    told: _Told,
    asked: _Asked,
    seed: int,
    *,
    unit: str = "share",
    beside: Mapping[str, Interval] = _CHANCE,
) -> Result:
    """The model's answer, and those of all other judges beside it."""
    answers = {who: asked(told, who, np.random.default_rng(seed)) for who in told.scores}
    own, how = answers.pop("model")
    twins = told.scores["model"].paired.tolist()
    return Result(
        benchmark=name,
        metric=metric,
        value=own.value,
        low=own.low,
        high=own.high,
        n=len(twins),
        unit=unit,
        seeds=(seed,),
        interval=how,
        baselines={**{who: interval for who, (interval, _) in answers.items()}, **beside},
        details={"episodes": [{"possible": good, "impossible": bad} for good, bad in twins]},
    )
