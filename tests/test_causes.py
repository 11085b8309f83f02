"""Hidden causes are found by going downhill: in units, row by row, only where they can be found, and in no weights."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ami.reasoning.causes import Explaining, explain, spread
from ami.types import Belief, Latent, WorldModel

CAUSES = Explaining(steps=40, prior=1e-6)


class Puck(WorldModel):
    """A puck slides along a line and slows down: seen is its place, carried along are speed, friction and a riddle.

    The riddle has no effect on anything.
    """

    latent_shape = (1, 1)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def predict(self, belief, actions, horizon):
        speed, friction, _ = belief.recurrent.unbind(1)
        place, passed = belief.latents.values[:, -1, 0, 0], []
        for step in range(horizon):
            speed = (speed if actions is None else speed + actions[:, step, 0]) * torch.exp(-friction)
            place = place + self.scale * speed
            passed.append(place)
        times = belief.latents.times[:, -1:] + torch.arange(1, horizon + 1)
        return Latent(torch.stack(passed, 1)[:, :, None, None], times)

    def energy(self, belief, actions, future):
        return (future.values - self.predict(belief, actions, future.steps).values).square().mean((2, 3))


def believed(places, speeds, frictions) -> Belief:
    place = torch.as_tensor(places).float()
    carried = torch.stack([torch.as_tensor(each).float() for each in (speeds, frictions, torch.full_like(place, 7.0))])
    return Belief("puck", Latent(place[:, None, None, None], torch.zeros(len(place), 1)), None, carried.T.contiguous())


@pytest.fixture
def puck() -> WorldModel:
    return Puck().eval()


TRUE = believed([0.0, 3.0, -1.0, 0.5], [1.0, -0.6, 0.8, 0.3], [0.05, 0.3, 0.6, 0.15])
GUESS = believed([0.0, 3.0, -1.0, 0.5], [0.5, -0.5, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2])


def seen(puck: WorldModel, steps: int = 12) -> Latent:
    with torch.no_grad():
        return puck.predict(TRUE, None, steps)


def test_speed_and_friction_are_found_and_the_energy_never_goes_up(puck) -> None:
    found = explain(puck, GUESS, None, seen(puck), CAUSES)
    torch.testing.assert_close(found.belief.recurrent, TRUE.recurrent, atol=2e-3, rtol=0)
    assert found.history.shape == (40, 4)
    assert (found.history.diff(dim=0) <= 0).all()
    assert (found.history[-1] < 1e-3 * found.history[0]).all()
    torch.testing.assert_close(found.history[0], puck.energy(GUESS, None, seen(puck)).mean(1).detach())
    assert found.belief.latents is GUESS.latents


def test_what_was_done_is_no_hidden_cause(puck) -> None:
    pushes = torch.zeros(4, 12, 1).index_fill(1, torch.tensor([3, 8]), 0.4)
    with torch.no_grad():
        pushed = puck.predict(TRUE, pushes, 12)
    found = explain(puck, GUESS, pushes, pushed, CAUSES)
    torch.testing.assert_close(found.belief.recurrent, TRUE.recurrent, atol=2e-3, rtol=0)


def test_a_place_that_was_not_seen_is_found_among_the_latents(puck) -> None:
    hidden = replace(TRUE, latents=replace(TRUE.latents, values=TRUE.latents.values + 2.0))
    found = explain(puck, hidden, None, seen(puck), replace(CAUSES, unknowns=("latents",)))
    torch.testing.assert_close(found.belief.latents.values, TRUE.latents.values, atol=1e-4, rtol=0)
    assert found.belief.recurrent is hidden.recurrent
    together = Explaining(("latents", "recurrent"), steps=120, prior=0.0)
    both = explain(puck, replace(hidden, recurrent=GUESS.recurrent), None, seen(puck), together).belief
    torch.testing.assert_close(both.latents.values, TRUE.latents.values, atol=0.01, rtol=0)
    torch.testing.assert_close(both.recurrent, TRUE.recurrent, atol=0.01, rtol=0)


def test_rows_do_not_hear_of_each_other(puck) -> None:
    whole = explain(puck, GUESS, None, seen(puck), CAUSES)
    for row in range(4):
        one = slice(row, row + 1)
        future = Latent(seen(puck).values[one], seen(puck).times[one])
        alone = explain(puck, GUESS.rows(one), None, future, CAUSES)
        torch.testing.assert_close(alone.belief.recurrent, whole.belief.recurrent[one], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.history, whole.history[:, one])


def test_weights_are_neither_changed_nor_given_gradients(puck) -> None:
    explain(puck, GUESS, None, seen(puck), CAUSES)
    assert puck.scale.grad is None
    assert puck.scale.item() == 1.0


def test_nothing_is_changed_without_a_reason(puck) -> None:
    found = explain(puck, GUESS, None, seen(puck), CAUSES)
    assert (found.belief.recurrent[:, 2] == 7.0).all()  # the riddle
    right = explain(puck, TRUE, None, seen(puck), CAUSES)
    assert torch.equal(right.belief.recurrent, TRUE.recurrent)
    away = replace(TRUE, latents=replace(TRUE.latents, values=TRUE.latents.values + 2.0))
    for price in (0.25, 1.0, 4.0):  # the least of d² + price (2 - d)²
        found = explain(puck, away, None, seen(puck), Explaining(("latents",), prior=price))
        left = found.belief.latents.values - TRUE.latents.values
        torch.testing.assert_close(left, torch.full_like(left, 2 * price / (1 + price)), atol=1e-3, rtol=0)


def test_causes_are_looked_for_where_beliefs_differ(puck) -> None:
    frictions = torch.linspace(0.0, 0.6, 50)
    same_speed = believed(torch.zeros(50), torch.full((50,), 0.5), frictions)
    along = spread(same_speed)
    assert along.directions.shape == (3, 1)
    torch.testing.assert_close(along.directions[:, 0].abs(), torch.tensor([0.0, frictions.std(correction=0), 0.0]))
    braked = believed([0.0], [0.5], [0.45])
    future = puck.predict(braked, None, 12)
    found = explain(puck, GUESS.rows(slice(1)), None, Latent(future.values.detach(), future.times), CAUSES, along)
    torch.testing.assert_close(found.belief.recurrent, braked.recurrent, atol=2e-3, rtol=0)
    other = explain(puck, GUESS, None, seen(puck), CAUSES, along)  # here the speed is wrong as well, and stays so
    assert torch.equal(other.belief.recurrent[:, 0], GUESS.recurrent[:, 0])


def test_how_beliefs_change_as_more_is_known_is_another_spread() -> None:
    speeds = torch.linspace(-1.0, 1.0, 40)
    less = believed(torch.zeros(40), speeds, torch.full((40,), 0.2))
    more = replace(less, recurrent=less.recurrent + torch.tensor([0.0, 0.1, 0.0]))
    assert spread(more).directions[:, 0].abs().argmax() == 0
    known = spread(more, knowing_less=less).directions
    torch.testing.assert_close(known[:, 0].abs(), torch.tensor([0.0, 0.1, 0.0]))
    assert spread(replace(less, recurrent=torch.randn(40, 3)), most=2).directions.shape == (3, 2)


class Valley(Puck):
    """Rosenbrock's banana of the first two numbers carried along, each row's of its own breadth; NaN beyond a wall."""

    beyond = False  # whether it was ever asked about there

    def energy(self, belief, actions, future):
        x, y, _ = belief.recurrent.unbind(1)
        height = (1 - x).square() + 10.0 * (1 + belief.latents.values[:, 0, 0, 0]) * (y - x.square()).square()
        self.beyond |= bool((x > 1.3).any())
        return torch.where(x > 1.3, torch.nan, height)[:, None].expand(-1, future.steps)


def test_a_bent_valley_is_followed_to_its_end_without_stepping_over_its_wall() -> None:
    start = replace(
        GUESS, recurrent=torch.tensor([[-1.2, 1.0, 0.0], [0.0, -1.0, 0.0], [1.2, 0.5, 0.0], [1.0, 1.0, 0.0]])
    )
    start = replace(start, latents=replace(start.latents, values=torch.arange(4.0)[:, None, None, None]))
    future = Latent(torch.zeros(4, 2, 1, 1), torch.zeros(4, 2))
    model = Valley().eval()
    found = explain(model, start, None, future, Explaining(steps=120, prior=0.0, first=3.0))
    assert model.beyond
    assert found.history.isfinite().all()
    assert (found.history.diff(dim=0) <= 0).all()
    torch.testing.assert_close(found.belief.recurrent[:, :2], torch.ones(4, 2), atol=0.02, rtol=0)


class Cliff(Puck):
    """Cheaper beyond a cliff, where there is a value and no slope."""

    def energy(self, belief, actions, future):
        x = belief.recurrent[:, 0]
        beyond = torch.where(x > 0.8, x - x, 1.0).sqrt()
        return torch.where(x > 0.8, beyond, (x - 1).square())[:, None].expand(-1, future.steps)


def test_nobody_stays_where_there_is_no_slope_to_go_on_by() -> None:
    future = Latent(torch.zeros(4, 2, 1, 1), torch.zeros(4, 2))
    found = explain(Cliff().eval(), GUESS, None, future, Explaining(steps=20, prior=0.0))
    assert found.belief.recurrent.isfinite().all()
    assert (found.belief.recurrent[:, 0] <= 0.8).all()
    assert (found.history[-1] > 0).all()


class Deaf(Puck):
    """Its energy does not depend on what is carried along."""

    def energy(self, belief, actions, future):
        return (self.scale * future.values).square().mean((2, 3))


def test_what_cannot_be_explained_is_one_sentence(puck) -> None:
    future = seen(puck)
    without = replace(GUESS, recurrent=None)
    for change, message in (
        ((puck, without, None, future), "carries nothing along"),
        ((puck, GUESS.rows(slice(2)), None, future), "4 rows were seen and 2 are believed"),
        ((Puck(), GUESS, None, future), "training mode"),
        ((Deaf().eval(), GUESS, None, future), "no gradient to recurrent of a belief"),
        ((Puck().eval(), GUESS, None, replace(future, values=future.values * torch.nan)), "no finite energy"),
        ((Puck().eval(), GUESS, None, future, CAUSES, spread(TRUE, ("latents",))), "learn it from beliefs like this"),
    ):
        with pytest.raises(ValueError, match=message):
            explain(*change)
    with pytest.raises(ValueError, match="all alike"):
        spread(GUESS.rows(torch.tensor([1, 1, 1])))
    for wrong, message in (
        ({"unknowns": ("weights",)}, "choose recurrent, latents or both"),
        ({"steps": 0}, "at least"),
    ):
        with pytest.raises(ValueError, match=message):
            Explaining(**wrong)
