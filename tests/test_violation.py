"""What cannot be surprises who knows the truth, every time; who looks at pictures alone is right by chance."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from ami.data.video import FILM
from ami.evaluation.benchmark import Asking
from ami.evaluation.films import film_clip
from ami.evaluation.suites.pairs import PairsBenchmark
from ami.evaluation.violation import (
    Scores,
    Twins,
    alarms,
    brightness,
    copy_last,
    frame_difference,
    lateness,
    miscalibration,
    pairwise,
    single,
)
from ami.models.baselines import CopyLast, Pixels
from ami.models.jepa import JEPA, sized
from ami.models.vjepa import VJEPA
from ami.models.vjepa import sized as films_sized
from ami.reasoning.rules import SlidingWindows
from ami.reasoning.surprise import Watching, energies, stepwise_energies
from ami.types import Clip, WorldModel
from matched_films import FRAMES, HIDDEN, SHOWN, Remembers, quadruplet

QUADRUPLETS = 12


def untrained() -> WorldModel:
    """Fresh weights."""
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        return JEPA(sized("baby", {"film": FILM})).eval()


@dataclass(frozen=True)
class Stepwise:
    """A rule of its own: a belief carried along, the mean over some horizons, the mean over the film."""

    horizons: tuple[int, ...] = (1, 2)
    name: str = "stepwise"
    protocol: str = "Step by step."
    shortest: int = 3

    def curve(self, model: WorldModel, film: Clip) -> torch.Tensor:
        return stepwise_energies(model, film, self.horizons).nanmean(2)

    def paired(self, curve: torch.Tensor) -> torch.Tensor:
        return curve.nanmean(1)

    alone = paired


@dataclass(frozen=True)
class Drawn:
    """Quadruplets of the ball and the screen, a few at a time."""

    swapped: bool = False
    known: int = 0
    protocol: tuple[str, ...] = field(default=("A ball goes behind a screen.",))

    def twins(self, model: WorldModel, n: int, asking: Asking) -> Iterator[Twins]:
        for first in range(0, n, 6):
            films = [quadruplet(seed) for seed in range(first, first + 6)]
            good, bad = (
                film_clip(model, *[four[name] for four in films for name in names])
                for names in (("aa", "bb"), ("ab", "ba"))
            )
            pair = (bad, good) if self.swapped else (good, bad)
            names = tuple(seed for seed in range(first, first + 6) for _ in (0, 1))
            yield Twins(*pair, "continuity", names, "occluded/fixed", moment=(SHOWN,) * 12)

    def ordinary(self, model: WorldModel, asking: Asking) -> list[Clip]:
        return [film_clip(model, quadruplet(1000 + seed)["aa"]) for seed in range(self.known)]


def asked(model: WorldModel, source: Drawn, rule=None, untrained: WorldModel | None = None, **settings):
    benchmark = PairsBenchmark("physics", source, rule or SlidingWindows(), **settings)
    answer = benchmark.run(model, QUADRUPLETS, Asking(seed=3, untrained=untrained))
    return {(result.benchmark, result.metric): result for result in answer.results}


@pytest.mark.parametrize("rule", [SlidingWindows(), Stepwise()])
def test_who_knows_the_truth_is_right_and_swapped_labels_flip_it(rule) -> None:
    right = asked(Remembers(), Drawn(), rule, untrained())
    wrong = asked(Remembers(), Drawn(swapped=True), rule)
    cell = right["physics/continuity/occluded/fixed", "pairwise"]
    assert (cell.value, cell.n, cell.interval) == (1.0, 24, "bootstrap over 12 quadruplets, 95 %")
    assert cell.low == pytest.approx(0.025 ** (1 / 12))  # exact, each quadruplet counted once
    assert wrong["physics/continuity/occluded/fixed", "pairwise"].value == 0.0
    assert (right["physics/all", "auroc"].value, wrong["physics/all", "auroc"].value) == (1.0, 0.0)
    assert right["physics/all", "detected"].value == 1.0
    assert right["physics/all", "false_alarms"].value == 0.0
    assert cell.baselines["untrained"].value == pytest.approx(0.5, abs=0.1)
    for name in ("frame-difference", "copy-last", "brightness"):
        assert cell.baselines[name].value == 0.5, f"{name} has nothing to go by in balanced quadruplets"
    # It peaks where the ball comes out in another row; a window is put down at its middle.
    assert right["physics/all", "peak_distance"].value < 0.25


@pytest.mark.parametrize("copies", [Pixels({"film": FILM}).eval(), CopyLast(untrained()).eval()])
@pytest.mark.parametrize("rule", [SlidingWindows(), Stepwise((1, HIDDEN))])
def test_who_copies_what_it_sees_is_at_chance(copies: WorldModel, rule) -> None:
    assert asked(copies, Drawn(), rule)["physics/all", "pairwise"].value == 0.5


def test_a_second_rule_stands_beside_the_first() -> None:
    told = asked(Remembers(), Drawn(), Stepwise(), beside=(SlidingWindows(),))
    assert told["physics/all", "pairwise"].baselines["sliding-windows"].value == 1.0


def test_ordinary_films_tell_what_is_ordinary() -> None:
    told = asked(Remembers(), Drawn(known=30))
    assert told["physics/all", "false_alarms"].value == 0.0
    assert told["physics/all", "calibration_error"].n == 24
    rng = np.random.default_rng(0)
    ordinary, good = rng.normal(size=4000), rng.normal(size=4000)
    quadruplet = np.arange(4000) // 2
    fair = Scores(np.stack([good, good], 1), np.stack([good, good + 3], 1), np.full(4000, np.nan))
    called = alarms(fair, quadruplet, 0.95, rng, ordinary)
    assert called.mean(0) == pytest.approx([0.05, 0.91], abs=0.015)
    assert alarms(fair, quadruplet, 0.95, rng).mean(0) == pytest.approx([0.05, 0.91], abs=0.015)
    assert miscalibration(fair, quadruplet, ordinary, rng).value < 0.02
    shy = replace(fair, alone=fair.alone + 1.0)  # the films that are asked about are all more surprising
    assert miscalibration(shy, quadruplet, ordinary, rng).low > 0.25


def test_the_belief_is_carried_along_and_judged_by_what_comes() -> None:
    model = Pixels({"film": FILM}).eval()
    films = film_clip(model, *quadruplet(0).values())
    judged = stepwise_energies(model, films, (1, 3))
    assert judged.shape == (4, FRAMES, 2)
    seen = model.encode(films).values
    for row, step, place, horizon in ((0, 1, 0, 1), (2, SHOWN, 0, 1), (3, FRAMES - 1, 1, 3), (1, 3, 1, 3)):
        error = (seen[row, step] - seen[row, step - horizon]).square().mean()
        assert judged[row, step, place] == pytest.approx(float(error))
    assert judged[:, 0].isnan().all()
    assert judged[:, :3, 1].isnan().all()
    assert not judged[:, 3:].isnan().any()
    torch.testing.assert_close(stepwise_energies(model, films, (1, 3), batch=3), judged, equal_nan=True)

    # Who remembers is judged by what it saw before the screen, however long that has been up.
    model = Remembers()
    curves = stepwise_energies(model, film_clip(model, *quadruplet(1).values()), (1,))[:, :, 0]
    assert curves[:2].nan_to_num(0).sum() == 0
    assert (curves[2:, SHOWN] >= 10).all()
    assert curves[2:, SHOWN + 1 :].sum() == 0, "once it was seen it is no surprise any more"


def test_who_sees_the_future_in_the_present_cannot_be_asked_step_by_step() -> None:
    config = films_sized("baby", {"film": replace(FILM, step_seconds=0.2)}).model_copy(update={"causal": False})
    model = VJEPA(config).eval()
    films = film_clip(model, *quadruplet(0).values())
    with pytest.raises(ValueError, match="each step in the light of those after it"):
        stepwise_energies(model, films)
    with pytest.raises(ValueError, match="films of 1 steps"):
        stepwise_energies(Remembers(), films.between(0, 1))
    # But by Meta's rule: the mean energy of each window, highest at the one that surprises most.
    rule = SlidingWindows()
    curve = rule.curve(model, films)
    windows = energies(model, films.rows(slice(2, 3)), Watching(4, 4)).mean(1)
    torch.testing.assert_close(curve[2, 5 : 5 + len(windows)], windows)
    assert curve[:, :5].isnan().all()
    torch.testing.assert_close(rule.paired(curve)[2], windows.mean())
    torch.testing.assert_close(rule.alone(curve)[2], windows.max())


def test_baselines_are_what_pixels_say() -> None:
    film = film_clip(Remembers(), quadruplet(0)["ab"])
    assert film.video is not None
    pixels = film.video[0, :, 0].float()
    assert brightness(film)[0, SHOWN] == pixels[SHOWN].mean()
    assert frame_difference(film)[0, 3] == pytest.approx(float((pixels[3] - pixels[2]).abs().mean()))
    assert frame_difference(film)[0, 0].isnan()
    assert copy_last(film)[0, 3] == pytest.approx(float((pixels[3] - pixels[2]).square().mean()))


def test_ties_count_half_and_pairs_of_one_quadruplet_once() -> None:
    rng = np.random.default_rng(0)
    paired = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [0.0, 3.0]])
    scores = Scores(paired, paired, np.array([0.5, -0.5, np.nan, 0.3]))
    assert pairwise(scores, np.arange(4), rng)[0].value == 0.625
    alone, how = pairwise(scores.rows(np.array([0, 1, 3])), np.arange(3), rng)
    assert (alone.value, how) == (pytest.approx(2 / 3), "Wilson 95 %")
    many = Scores(np.tile(paired, (60, 1)), np.tile(paired, (60, 1)), np.zeros(240))
    loose, _ = pairwise(many, np.repeat(np.arange(24), 10), rng)
    tight, _ = pairwise(many, np.arange(240), rng)
    assert loose.value == tight.value
    assert loose.high - loose.low > 0
    one = pairwise(scores, np.zeros(4, int), rng)[0]
    assert (one.low, one.high) == (0.0, 1.0), "of one quadruplet nothing is known of others"
    assert single(scores, np.zeros(4, int), rng).low == 0.0
    assert lateness(scores, np.arange(4), rng).value == 0.5
    with pytest.raises(ValueError, match="NaN or infinite"):
        Scores(np.array([[np.nan, 0.0]]), np.zeros((1, 2)), np.zeros(1))


def test_twins_that_do_not_match_are_refused() -> None:
    films = film_clip(Remembers(), *quadruplet(0).values())
    with pytest.raises(ValueError, match="4 possible and 4 impossible films, 3 quadruplets and 3 moments came"):
        Twins(films, films, "x", (1, 2, 3))
    assert Twins(films, films, "x", (1,) * 4).cell == "x"
    with pytest.raises(ValueError, match="give clips with video"):
        brightness(Clip("film", films.times))
