"""What if: both futures share the past and its causes, so only what was replaced tells them apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ami.reasoning.causes import Explaining, explain
from ami.reasoning.counterfactual import Futures, carried, distance, past, what_if
from ami.reasoning.readout import Readout
from ami.types import Belief, Clip, Latent
from test_causes import GUESS, TRUE, Puck

STEPS = 10
DONE = torch.zeros(4, STEPS, 1)
INSTEAD = DONE.index_fill(1, torch.tensor([2]), 0.5)


def test_the_futures_part_where_something_else_is_done_and_as_far_as_it_makes() -> None:
    futures = what_if(Puck().eval(), TRUE, DONE, STEPS, instead=INSTEAD)
    assert (futures.apart[:, :2] == 0).all()
    slow = torch.exp(-TRUE.recurrent[:, 1:2])  # a push of 0.5 goes on as a falling geometric series
    wanted = 0.5 * torch.stack([(slow ** torch.arange(1, n + 1)).sum(1) for n in range(1, STEPS - 1)], 1)
    torch.testing.assert_close(futures.apart[:, 2:], wanted)
    inches = Readout(torch.tensor([[39.37], [5.0]]))
    torch.testing.assert_close(futures.differ(inches)[:, 2:, 0], 39.37 * wanted, rtol=1e-4, atol=1e-3)
    same = what_if(Puck().eval(), TRUE, DONE, STEPS)
    assert torch.equal(same.factual.values, same.other.values)


def test_causes_that_were_inferred_make_the_other_future_right() -> None:
    model = Puck().eval()
    with torch.no_grad():
        seen, truth = model.predict(TRUE, DONE, STEPS), model.predict(TRUE, INSTEAD, STEPS)
    inferred = explain(model, GUESS, DONE, seen, Explaining(prior=1e-6)).belief
    wrong, right = (
        distance(what_if(model, belief, DONE, STEPS, instead=INSTEAD).other, truth).mean()
        for belief in (GUESS, inferred)
    )
    assert right < 0.01 * wrong


def test_another_past_takes_the_causes_along() -> None:
    before = replace(GUESS, recurrent=torch.tensor([[0.5, 0.2, 7.0]] * 4))
    edited = replace(before, latents=replace(before.latents, values=before.latents.values + 1.0))
    other = carried(TRUE, before, edited)
    torch.testing.assert_close(other.recurrent, TRUE.recurrent)
    assert torch.equal(other.latents.values, edited.latents.values)
    moved = what_if(Puck().eval(), TRUE, None, STEPS, other=other)
    torch.testing.assert_close(moved.other.values, moved.factual.values + 1.0)


def test_causes_are_carried_only_where_the_edit_changed_nothing() -> None:
    held = Latent(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1))
    state = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]])
    before = Belief("grid", held, None, state)
    explained = replace(before, recurrent=state + 0.5)
    edited = replace(before, recurrent=state + torch.tensor([[[0.0, 0.0], [0.0, -2.0], [0.1, 0.0]]]))
    wanted = torch.tensor([[[1.5, 0.5], [0.0, 0.0], [3.6, 3.5]]])  # the object of the second token is gone
    torch.testing.assert_close(carried(explained, before, edited).recurrent, wanted)
    torch.testing.assert_close(carried(explained, before, edited, alike=9.0).recurrent[0, 1], torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match=r"between states of shape \(1, 3, 2\) and \(1, 2, 2\); let both pasts"):
        carried(explained, before, replace(before, recurrent=state[:, :2]))


def test_a_past_is_perceived_from_nothing() -> None:
    class Looking(Puck):
        def encode(self, clip):
            return Latent(clip.truth[:, :, None, :], clip.times)

        def believe(self, belief, seen, actions, embodiment=""):
            assert belief is None
            return Belief(embodiment, seen, actions)

    clip = Clip("puck", torch.arange(3.0)[None], actions=torch.ones(1, 2, 1), truth=torch.ones(1, 3, 1))
    belief = past(Looking().eval(), clip)
    assert (belief.embodiment, belief.latents.steps, belief.actions.shape) == ("puck", 3, (1, 2, 1))


def test_futures_of_other_lengths_are_not_compared() -> None:
    one, other = (Latent(torch.zeros(1, steps, 1, 2), torch.zeros(1, steps)) for steps in (3, 4))
    with pytest.raises(ValueError, match=r"shape \(1, 3, 1, 2\) and \(1, 4, 1, 2\) cannot be compared"):
        Futures(one, other)
    far = Latent(torch.tensor([[[[3.0, 4.0]]]]), torch.zeros(1, 1))
    none = Latent(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1))
    assert distance(far, none).item() == pytest.approx(np.sqrt(12.5))
