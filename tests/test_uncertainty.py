"""Doubt is tried where the truth is known: a wind as strong as told, and places where nobody has ever been."""

from dataclasses import replace

import pytest
import torch

from ami.evaluation.benchmark import Asking
from ami.evaluation.suites.calibration import CalibrationBenchmark
from ami.models.jepa import JEPA, SCENE, STATE, JEPAConfig, sized
from ami.nn.spread import Spread
from ami.objectives.uncertainty import Uncertainty, unlikeliness
from ami.planning.costs import GoalDistance, Sum, Unsure
from ami.planning.guardrails import Everywhere
from ami.planning.sampling import METHODS, SamplingPlanner
from ami.types import Clip, Embodiment, Guardrail, Latent
from ami.worlds.rooms import EMBODIMENT
from known_worlds import Linear, latent, plan

BODY = Embodiment("plane", 0.5, (-1.0, -1.0), (1.0, 1.0), (0.0, 0.0), (0.3, 0.3))
CALM, WINDY = 0.1, 0.3  # deviations of the wind, in each step and number, on the left and on the right


class Walker(JEPA):
    """It knows what its actions do, and nothing of the wind."""

    def predict(self, belief, actions, horizon):
        held = belief.latents.values[:, -1:]
        state = held[:, :, STATE] + actions.cumsum(1)
        values = torch.stack([state, held[:, :, SCENE].expand_as(state)], 2)
        return Latent(values, belief.latents.times[:, -1:] + 0.5 * torch.arange(1, horizon + 1))


def walks(generator: torch.Generator, rows: int = 256, steps: int = 4, far: float = 0.0) -> Clip:
    """Short walks, half of them far on the left and half on the right; ``far`` beyond where all others were."""
    side = torch.where(torch.rand(rows, generator=generator) < 0.5, -1.0, 1.0)
    start = torch.randn(rows, 2, generator=generator) * 0.3 + torch.stack([2 * side, torch.full((rows,), far)], 1)
    actions = 0.3 * torch.randn(rows, steps, 2, generator=generator)
    strength = torch.where(side > 0, WINDY, CALM)[:, None, None]
    gone = (actions + strength * torch.randn(rows, steps, 2, generator=generator)).cumsum(1)
    state = start[:, None] + torch.cat([torch.zeros(rows, 1, 2), gone], 1)
    values = torch.stack([state, torch.zeros_like(state)], 2)
    return Clip("plane", 0.5 * torch.arange(steps + 1.0).expand(rows, -1), actions=actions, latents=values)


@pytest.fixture(scope="module")
def taught() -> Walker:
    """After a second or two of the third stage."""
    torch.manual_seed(0)
    model = Walker(JEPAConfig(embodiments={"plane": BODY}, dim=2, predictor_width=64, unsure=("plane",)))
    objective, generator = Uncertainty(), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.spreads.parameters(), 8e-3)
    for step in range(180):
        losses = objective.losses(model, walks(generator), generator)
        optimiser.param_groups[0]["lr"] = 8e-3 * (1 - step / 180)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    return model.eval().requires_grad_(False)


def missed(model: JEPA, clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    """The squared error of each walk at each step, and what the model expected of it."""
    belief = model.believe(None, Latent(clip.latents[:, :1], clip.times[:, :1]), None, "plane")
    imagined = model.predict(belief, clip.actions, clip.steps - 1)
    error = (clip.latents[:, 1:, STATE] - imagined.values[:, :, STATE]).square().mean(-1)
    return error, model.uncertainty(imagined, clip.actions, "plane")


def test_a_variance_is_likeliest_where_it_is_the_mean_squared_error() -> None:
    error = torch.randn(4000, generator=torch.Generator().manual_seed(0)).square()
    right, sure, shy = (unlikeliness(error, error.mean() * factor) for factor in (1.0, 0.5, 2.0))
    assert right < shy < sure  # who is too sure pays more than who is too shy
    variance = error.mean().requires_grad_()
    (slope,) = torch.autograd.grad(unlikeliness(error, variance), variance)
    assert abs(float(slope)) < 1e-5


def test_it_expects_the_wind_that_blows_where_it_blows_and_lets_it_add_up(taught: Walker) -> None:
    clip = walks(torch.Generator().manual_seed(1), 4000)
    _, expected = missed(taught, clip)
    right = clip.latents[:, 0, STATE, 0] > 0
    for side, wind in ((right, WINDY), (~right, CALM)):
        for step in range(4):
            assert expected[side, step].median() == pytest.approx((step + 1) * wind**2, rel=0.3)


def test_as_many_walks_end_within_its_intervals_as_it_says(taught: Walker) -> None:
    clip = walks(torch.Generator().manual_seed(2), 4000, steps=6)  # farther ahead than it was taught
    error, expected = missed(taught, clip)
    # Two numbers of one Gaussian: the mean of their squares, over the variance, is exponential.
    for level in (0.5, 0.8, 0.95):
        bound = -torch.log(torch.tensor(1 - level))
        assert float((error < bound * expected).float().mean()) == pytest.approx(level, abs=0.06)
        assert float((error < bound * expected / 3).float().mean()) < level - 0.1  # one third as wide: too sure


def test_where_nobody_was_the_members_part(taught: Walker) -> None:
    known, strange = (walks(torch.Generator().manual_seed(3), far=far) for far in (0.0, 8.0))

    def parted(clip: Clip) -> float:
        steps = taught.judged(Latent(clip.latents[:, 1:], clip.times[:, 1:]), clip.actions, "plane")
        return float(taught.spread("plane").whence(steps).var(0).mean(-1).median())

    assert parted(strange) > 20 * parted(known)


def test_only_the_doubt_is_taught() -> None:
    model = JEPA(JEPAConfig(embodiments={"plane": BODY}, dim=2, predictor_width=16, unsure=("plane",)))
    clip = walks(torch.Generator().manual_seed(0), 8)
    losses = Uncertainty().losses(model, clip, torch.Generator())
    torch.stack(list(losses.values())).sum().backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached
    assert all(name.startswith("spreads.") for name in reached)
    unsure = torch.autograd.grad(
        Uncertainty().losses(model, clip, torch.Generator())["unsure"],
        list(model.spread("plane").members.parameters()),
        allow_unused=True,
    )
    assert all(each is None for each in unsure)  # what the members say is not bent to fit the noise


def test_who_has_not_learned_it_says_so() -> None:
    model = JEPA(JEPAConfig(embodiments={"plane": BODY}, dim=2))
    assert not model.unsure
    assert Unsure.of(model, "plane") is None
    with pytest.raises(ValueError, match="how unsure it is for 'plane'"):
        model.uncertainty(Latent(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1)), torch.zeros(1, 1, 2), "plane")
    with pytest.raises(ValueError, match="'film' has no actions"):
        JEPA(JEPAConfig(embodiments={"film": Embodiment("film", 0.1)}, unsure=("film",)))
    with pytest.raises(ValueError, match="has learned how far off"):
        CalibrationBenchmark().run(JEPA(sized("baby", {EMBODIMENT.name: EMBODIMENT})).eval(), 2, Asking())


def test_where_the_members_part_it_is_less_sure() -> None:
    step = torch.randn(50, 6, generator=torch.Generator().manual_seed(4))
    spread = Spread(2, 2, 16)
    alike = Spread(2, 2, 16)
    alike.load_state_dict(spread.state_dict())
    alike.members[1].load_state_dict(alike.members[0].state_dict())
    assert (spread(step) > alike(step)).all()
    torch.testing.assert_close(alike(step), alike.noise(step)[:, 0].exp())


class Foggy(Linear):
    """A plane with fog round (1, 0): each step in it adds to what is not known."""

    def __init__(self) -> None:
        super().__init__(torch.eye(2), torch.eye(2))
        self.unsure = ("test",)

    def uncertainty(self, imagined, actions, embodiment):
        place = imagined.values[:, :, 0] - torch.tensor([1.0, 0.0])
        return torch.exp(-place.square().sum(-1) / 0.1).cumsum(1)


def test_a_plan_goes_round_what_is_not_known_if_that_is_a_wish_or_a_bound() -> None:
    model, start = Foggy(), [[0.0, 0.1]]
    unsure = Unsure.of(model, "test")
    assert unsure is not None
    goal = GoalDistance(latent([[2.0, 0.1]]))
    planner = SamplingPlanner(replace(METHODS["cem"], samples=256, iterations=12))

    def fog(cost, **changes) -> float:
        found = plan(planner, model, cost, start, **changes)
        assert torch.linalg.vector_norm(found.imagined.values[0, -1, 0] - torch.tensor([2.0, 0.1])) < 0.2
        return float(unsure(found.imagined, found.actions)[0])

    straight = fog(goal)
    assert straight > 1.5
    assert fog(Sum(((1.0, goal), (5.0, unsure)))) < 0.3 * straight
    assert fog(Sum(((1.0, goal), (-0.3, unsure)))) > straight  # who is curious seeks it
    assert fog(goal, guardrails=(Guardrail("fog", Everywhere(unsure.uncertainty), high=0.5),)) <= 0.5


def test_calibration_is_asked_of_a_model_by_how_far_ahead() -> None:
    torch.manual_seed(0)
    names = (EMBODIMENT.name,)
    model = JEPA(sized("baby", {EMBODIMENT.name: EMBODIMENT}, unsure=names)).eval().requires_grad_(False)
    model.predictor.change.weight.normal_(std=0.01)
    small = CalibrationBenchmark(ahead=(1, 3), levels=(0.5, 0.9))
    told = small.run(model, 6, Asking(untrained=model)).results
    assert {each.benchmark for each in told} == {"two-rooms/calibration/ahead-1", "two-rooms/calibration/ahead-3"}
    assert [each.metric for each in told[:3]] == ["coverage_50", "coverage_90", "spearman"]
    assert told[0].value <= told[1].value
    assert told[2].baselines["one-size"].value == 0.0
    assert told[1].baselines["untrained"].value == told[1].value
    # Who is a hundred times as sure covers less.
    model.spread(EMBODIMENT.name).noise[-1].bias.fill_(-20.0)
    assert replace(small, ahead=(3,)).run(model, 6, Asking()).results[1].value < told[4].value
