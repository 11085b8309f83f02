"""A diagnosis finds the part that was made bad, and changes nothing of an agent that it only watches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ami.agent import perceive
from ami.evaluation.benchmark import Asking
from ami.evaluation.oracle import Knowing
from ami.evaluation.simulator import RoomsSimulator
from ami.evaluation.suites import SUITES
from ami.evaluation.suites.control import RoomsBenchmark, shown
from ami.evaluation.suites.diagnosed import Diagnosis, diagnosed
from ami.planning.sampling import SamplingSettings
from ami.types import Clip, Latent
from known_worlds import Redness

QUICK = SamplingSettings(samples=24, iterations=3, elites=6, colour=1.0)
OF = RoomsBenchmark("fixed", cross_room=False, planner=QUICK, warm_iterations=2, horizon=5, steps=10)
SMALL = Diagnosis(OF, more=2, labelled=40, rolled=10, ahead=6)


class Blurred(Redness):
    """Sees places to 24 px."""

    def encode(self, clip: Clip) -> Latent:
        seen = super().encode(clip)
        return Latent((seen.values / 24).round() * 24, seen.times)


class Frozen(Redness):
    """Takes it that every action does nothing, but for a tremble that says which is which."""

    def predict(self, belief, actions, horizon):
        moved = super().predict(belief, actions, horizon)
        here = belief.latents.values[:, -1:]
        return Latent(here - 0.01 * (moved.values - here), moved.times)


def _gains(diagnosis: Diagnosis, model: Redness) -> dict[str, float]:
    answer = diagnosis.run(model.eval(), 6, Asking(seed=2))
    end = next(each for each in answer.results if each.metric == "success_end")
    held = {part: share.value for part, share in end.baselines.items()}
    gains = {part: held[part] - end.value for part in ("search", "dynamics", "cost")}
    (note,) = answer.notes
    gains["perception"] = held["all"] - held["perception"]
    assert f"most is lost by the {max(gains, key=gains.__getitem__)}" in note
    return gains


def test_what_was_made_bad_is_found() -> None:
    gains = _gains(SMALL, Frozen())
    assert max(gains, key=gains.__getitem__) == "dynamics"
    assert gains["dynamics"] >= 0.5
    gains = _gains(SMALL, Blurred())
    assert max(gains, key=gains.__getitem__) == "perception"
    hasty = replace(OF, planner=SamplingSettings(samples=2, iterations=1, elites=2), warm_iterations=1)
    gains = _gains(replace(SMALL, of=hasty, more=16), Redness())
    assert max(gains, key=gains.__getitem__) == "search"


def test_who_is_only_watched_does_the_same() -> None:
    model, pairs = Redness().eval(), OF.pairs(1, 4)
    agent = OF.agent(model, perceive(model, shown(pairs.rooms, pairs.goal)), OF.planner, 1)
    alone = OF.follow(agent, pairs, Asking(), "")
    watched = OF.follow(replace(agent, model=Knowing(model, RoomsSimulator().eval()).eval()), pairs, Asking(), "")
    np.testing.assert_array_equal(alone.path, watched.path)


def test_true_dynamics_perceive_what_really_follows() -> None:
    simulator, pairs = RoomsSimulator().eval(), OF.pairs(1, 4)
    model = Knowing(Redness().eval(), simulator, dynamics=True).eval()
    actions = torch.tensor([1.0, 0.3]).expand(4, 6, 2)
    truth = np.concatenate([pairs.start, pairs.rooms.wall[:, None], pairs.rooms.door[:, None]], 1)
    first = replace(shown(pairs.rooms, pairs.start), truth=torch.from_numpy(truth).float()[:, None])
    known = model.predict(model.believe(None, model.encode(first), None, "two-rooms"), actions, 6)
    position = pairs.start
    for step in range(6):
        position = pairs.rooms.step(position, actions[:, step].numpy())[-1]
        np.testing.assert_allclose(known.truth[:, step, :2], position, atol=1e-4)
        np.testing.assert_allclose(known.values[:, step, 0], position, atol=0.2)


def test_a_search_that_cannot_get_there_is_said_to_have_sampled_no_way() -> None:
    short = replace(OF, cross_room=True, horizon=1, replan_every=1, steps=2)
    answer = replace(SMALL, of=short).run(Redness().eval(), 6, Asking(seed=2))
    sampled = next(each for each in answer.results if each.metric == "sampled")
    assert sampled.value == 0
    assert "Of 6 episodes that do not end at the goal, no search of 6 ever sampled a way to it" in answer.notes[0]


def test_how_long_it_can_be_imagined() -> None:
    """Who knows of no walls is right until one is met; who moves nothing soon is not."""
    usable = [
        next(each for each in SMALL.run(model.eval(), 2, Asking(seed=2)).results if each.metric == "usable_steps")
        for model in (Redness(), Frozen())
    ]
    assert usable[0].value > usable[1].value + 1


def test_other_suites_are_refused() -> None:
    assert [n for _, n in diagnosed(SUITES["rooms"]).asked] == [30] * 3
    assert diagnosed(SUITES["plan"]).digest != SUITES["plan"].digest
    with pytest.raises(ValueError, match="Two Rooms"):
        diagnosed(SUITES["films"])
