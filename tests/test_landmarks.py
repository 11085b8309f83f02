"""Landmarks are tried where every distance is known, and a count of steps that is wrong beyond a few."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import floyd_warshall

from ami.models import checkpoint
from ami.models.jepa import JEPA, JEPAConfig
from ami.models.mind import Mind, MindConfig
from ami.planning.costs import StepsToGo
from ami.planning.landmarks import Landmarks, StepsThrough
from ami.planning.sampling import METHODS, SamplingPlanner
from ami.recipes.baby import baby
from ami.types import Embodiment, Latent
from known_worlds import integrator, latent, plan
from tiny_stores import TINY, rooms_store

BODY = Embodiment("line", step_seconds=0.5, low=(-1.0, -1.0), high=(1.0, 1.0))
SURE = 1.5
CORRIDOR = torch.stack([torch.arange(-6.0, 7.0), torch.zeros(13)], 1)[:, None]  # a landmark at every whole number
CEM = SamplingPlanner(replace(METHODS["cem"], samples=128, elites=16, iterations=8))


def pitted(now: Latent, goal: Latent) -> torch.Tensor:
    """Right up to two steps; from farther the goal looks the nearer the farther it is."""
    far = (goal.values - now.values)[:, :, 0].norm(dim=-1)
    return torch.where(far <= 2, far, 10 - 0.5 * far)


def downhill(now: Latent, goal: Latent) -> torch.Tensor:
    """There is no way to the left."""
    gap = (goal.values - now.values)[:, :, 0, 0]
    return torch.where(gap >= 0, gap, torch.inf)


def corridor(reach=pitted, sure: float = SURE) -> Landmarks:
    return Landmarks.joined(CORRIDOR, reach, sure)


def at(*places: float) -> Latent:
    return latent([[place, 0.0] for place in places])


def counted(cost: StepsThrough, *places: float) -> list[float]:
    return [float(cost(at(place), torch.zeros(1, 1, 2))) for place in places]


# ---------------------------------------------------------------- the ways


def test_long_ways_are_sums_of_short_ones_and_wrong_long_ones_are_not_believed() -> None:
    known = corridor()
    straight = (CORRIDOR[:, 0, 0, None] - CORRIDOR[:, 0, 0]).abs()
    torch.testing.assert_close(known.steps, straight)
    torch.testing.assert_close(known.to(at(5.0, -2.5)), (CORRIDOR[:, 0, 0] - torch.tensor([[5.0], [-2.5]])).abs())


def test_shortest_ways_satisfy_the_triangle_and_are_those_of_another_library() -> None:
    counts = 6 * torch.rand(40, 40, generator=torch.Generator().manual_seed(0))
    numbered = torch.arange(40.0)[:, None, None]

    def drawn(now: Latent, goal: Latent) -> torch.Tensor:
        return counts[now.values[..., 0, 0].long(), goal.values[..., 0, 0].long()]

    steps = Landmarks.joined(numbered, drawn, 1.0).steps
    assert (steps[:, None] <= steps[:, :, None] + steps + 1e-5).all()
    edges = torch.where(counts <= 1.0, counts, 0.0).fill_diagonal_(0.0)
    torch.testing.assert_close(steps, torch.from_numpy(floyd_warshall(edges.numpy())).float())
    assert steps.isfinite().float().mean() > 0.9


def test_ways_have_a_direction() -> None:
    steps = corridor(downhill).steps
    assert steps[2, 5] == 3
    assert steps[5, 2].isinf()
    left = corridor(downhill).to(at(0.0))[0]
    assert left[:7].tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert left[7:].isinf().all()


# ---------------------------------------------------------------- the cost


def test_what_is_near_is_counted_directly_and_what_is_far_through_landmarks() -> None:
    cost = StepsThrough.to(at(5.0), corridor(), sum=0.0)
    assert counted(cost, 5.0, 4.2, 3.5) == pytest.approx([0.0, 0.8, 1.5])
    assert counted(cost, 2.4, -3.3, -6.0) == pytest.approx([2.6, 8.3, 11.0])
    path = Latent(torch.tensor([[[[2.4, 0.0]], [[4.0, 0.0]]]]), torch.zeros(1, 2))
    assert StepsThrough.to(at(5.0), corridor(), sum=1.0, last=10.0)(path, torch.zeros(1, 2, 2)) == 2.6 + 1 + 10
    alone = StepsThrough.to(at(5.0), Landmarks.joined(CORRIDOR[:1], pitted, SURE), sum=0.0)
    assert counted(alone, -6.0) == pytest.approx([4.5])  # who knows one place only is left with the count


def test_a_goal_beyond_all_landmarks_is_joined_to_the_nearest() -> None:
    assert counted(StepsThrough.to(at(7.9), corridor(), sum=0.0), 0.0) == pytest.approx([7.9])


def test_it_is_walked_to_a_goal_that_the_count_leads_away_from() -> None:
    goal, starts = at(5.0, -5.0), [[0.0, 0.0], [1.0, 0.0]]

    def end(cost) -> list[float]:
        return plan(CEM, integrator(), cost, starts, bound=1.5, horizon=6).imagined.values[:, -1, 0, 0].tolist()

    assert end(StepsThrough.to(goal, corridor())) == pytest.approx([5.0, -5.0], abs=0.3)
    astray = end(StepsToGo(goal, pitted))
    assert astray[0] < -4
    assert astray[1] > 5


def test_where_no_way_leads_on_there_is_no_plan() -> None:
    cost = StepsThrough.to(at(4.0, -4.0), corridor(downhill))
    found = plan(CEM, integrator(), cost, [[0.0, 0.0], [0.0, 0.0]], bound=1.0, horizon=2)
    assert found.why == ("", "unreachable")


def test_neighbours_change_nothing_to_the_last_bit() -> None:
    goals = torch.rand(5, 2, generator=torch.Generator().manual_seed(3)) * 8 - 4
    cost, imagined = StepsThrough.to(latent(goals), corridor()), latent(goals.flip(0).repeat_interleave(3, 0))
    everyone = cost(imagined, torch.zeros(15, 1, 2))
    order = torch.tensor([3, 0])
    rows = (3 * order[:, None] + torch.arange(3)).flatten()
    some = Latent(imagined.values[rows], imagined.times[rows])
    assert torch.equal(cost.rows(order)(some, torch.zeros(6, 1, 2)), everyone[rows])
    assert torch.equal(StepsThrough.to(latent(goals[order]), corridor())(some, torch.zeros(6, 1, 2)), everyone[rows])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="trust more than 0 steps"):
        corridor(sure=0.0)
    with pytest.raises(ValueError, match="plan number 2 has no goal"):
        StepsThrough.to(at(1.0), corridor()).rows(torch.tensor([2]))
    with pytest.raises(ValueError, match="encode the goal with the model that plans"):
        StepsThrough.to(at(1.0), corridor())(Latent(torch.zeros(1, 1, 1, 3), torch.zeros(1, 1)), torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="name it in `reaches`"):
        JEPA(JEPAConfig(embodiments={"line": BODY}, dim=2, settled=("line",)))


# ---------------------------------------------------------------- who keeps them


def test_landmarks_are_kept_in_the_checkpoint_and_a_mind_asks_its_part(tmp_path: Path) -> None:
    config = JEPAConfig(embodiments={"line": BODY}, dim=2, reaches=("line",), settled=("line",), landmarks=3)
    made = Mind(MindConfig(acting=config)).eval()
    seen = torch.arange(12.0).view(3, 2, 2)
    made.acting.settle("line", seen)
    checkpoint.save(tmp_path / "kept", made, checkpoint.Provenance(recipe="baby", code=checkpoint.CodeVersion("0")))
    again = checkpoint.load(tmp_path / "kept")
    kept = again.landmarks("line")
    assert kept is not None
    assert torch.equal(kept.values[:, 0], seen)
    known = Landmarks.of(again, "line", 4.0)
    assert known is not None
    assert known.steps.shape == (3, 3)
    assert Landmarks.of(JEPA(config.model_copy(update={"settled": ()})), "line", 4.0) is None


def test_a_baby_keeps_varied_moments_of_a_place_where_it_always_is(tmp_path: Path) -> None:
    store = rooms_store(tmp_path / "rooms", episodes=20)
    recipe = baby([store], 0, replace(TINY, enough=100, reach=1, reach_batch=8, settled=("two-rooms",)))
    model = recipe.build().eval()
    recipe.stages[2].loader(model)
    kept = model.landmarks("two-rooms")
    assert kept is not None
    assert len(kept.values.unique(dim=0)) == len(kept) == 256
    with torch.no_grad():
        seen = model.encode(store.clips(np.array([[number, 0] for number in range(20)]), 20)).values
    assert torch.cdist(kept.values.flatten(1), seen.flatten(0, 1).flatten(1)).amin(1).max() < 1e-2
