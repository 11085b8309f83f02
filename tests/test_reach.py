"""Ways are tried on a line, where every distance is known; lessons where what was missed is."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ami.models.jepa import JEPA, JEPAConfig
from ami.nn.predictors import mended
from ami.objectives.reach import Reach
from ami.training.ways import WaySettings, WayStore
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

SHOWN = WaySettings().before + 2  # moments that a clip of a way shows
BODY = Embodiment("line", step_seconds=0.5, low=(-1.0, -1.0), high=(1.0, 1.0), action_mean=(0, 0), action_std=(1, 1))


class Plane(WorldModel):
    """Two numbers that actions are added to; where ``falls``, the second never grows."""

    latent_shape = (1, 2)

    def __init__(self, falls: bool = False) -> None:
        super().__init__()
        self.embodiments, self.falls = {"line": BODY}, falls

    def encode(self, clip):
        return Latent(clip.latents, clip.times)

    def predict(self, belief, actions, horizon):
        actions = torch.stack([actions[..., 0], actions[..., 1].clamp_max(0.0)], -1) if self.falls else actions
        values = belief.latents.values[:, -1:] + actions.cumsum(1)[:, :, None]
        return Latent(values, belief.latents.times[:, -1:] + torch.arange(1, horizon + 1))

    def propose(self, belief, goal, horizon):
        way = (goal.values[:, 0, 0] - belief.latents.values[:, -1, 0]).clamp(-1.0, 1.0)
        return way[:, None].expand(-1, horizon, -1)


class Walks:
    """Walks in memory, as a perceived store shows them."""

    folder = None

    def __init__(self, places: torch.Tensor, named: tuple[str, ...] = ()) -> None:
        self.places = places
        self.perceived = tuple(range(len(places)))
        named = named or ("",) * len(places)
        self.episodes = tuple(SimpleNamespace(length=places.shape[1], place=name) for name in named)

    def clips(self, index, steps, frames_per_step=1):
        seen = self.places[torch.from_numpy(index[:, 0])]
        times = torch.arange(steps).expand(len(seen), -1) * 0.5
        return Clip("line", times, latents=seen[:, :, None], actions=seen[:, 1:] - seen[:, :-1])


def wandering(walks: int = 3, moments: int = 40) -> torch.Tensor:
    """Steps of half an action at most, here and there."""
    steps = torch.rand(walks, moments, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    return steps.cumsum(1).clamp(-1.5, 1.5)


def ways(model: WorldModel, places: torch.Tensor, named: tuple[str, ...] = (), **changes) -> tuple[WayStore, Clip]:
    store = WayStore(Walks(places, named), model, BODY, WaySettings(**{"near": 1e6, "apart": 1, **changes}))
    return store, store.clips(store.windows(SHOWN), SHOWN)


def test_a_way_is_never_shorter_than_the_straight_line_and_hardly_longer() -> None:
    places = wandering()
    _, found = ways(Plane(), places, hop=0.5)
    taken = (found.times[:, -1] - found.times[:, -2]) / BODY.step_seconds
    straight = (found.latents[:, -1, 0] - found.latents[:, -2, 0]).norm(dim=-1)
    far = straight > 1.0
    assert far.sum() > 500
    assert (taken > straight - 1e-4).all()
    assert (taken[far] / straight[far]).mean() < 1.25  # the walk that was done takes many times as long


def test_the_first_action_of_a_far_way_is_full_and_leads_nearer() -> None:
    _, found = ways(Plane(), wandering(), hop=0.5)
    toward = found.latents[:, -1, 0] - found.latents[:, -2, 0]
    far = toward.norm(dim=-1) > 1.2
    first = found.actions[far, -1]
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(int(far.sum())))
    cosine = (first * toward[far]).sum(-1) / toward[far].norm(dim=-1)
    assert cosine.mean() > 0.8


def test_effort_is_measured_from_the_middle_of_the_range_wherever_that_is() -> None:
    class Aside(Plane):
        def predict(self, belief, actions, horizon):
            return super().predict(belief, actions - 1.0, horizon)

        def propose(self, belief, goal, horizon):
            return super().propose(belief, goal, horizon) + 1.0

    class WalksAside(Walks):
        def clips(self, index, steps, frames_per_step=1):
            clip = super().clips(index, steps)
            return replace(clip, actions=clip.actions + 1.0)

    places, settings = wandering(), WaySettings(near=1e6, apart=1, hop=0.5)
    body = replace(BODY, low=(0.0, 0.0), high=(2.0, 2.0))
    aside = WayStore(WalksAside(places), Aside(), body, settings)
    found, plain = aside.clips(aside.windows(SHOWN), SHOWN), ways(Plane(), places, hop=0.5)[1]
    torch.testing.assert_close(found.actions - 1.0, plain.actions, rtol=0, atol=2e-3)
    torch.testing.assert_close(found.times, plain.times)


def test_what_cannot_be_undone_has_no_way_back() -> None:
    places = torch.stack([torch.zeros(12), -torch.arange(12) * 0.4], -1)[None]
    store, found = ways(Plane(falls=True), places, near=0.5)
    assert (found.latents[:, -1, 0, 1] <= found.latents[:, -2, 0, 1]).all()
    down = store.windows(SHOWN)[:, 1]
    assert (down % 12 >= down // 12).all()
    assert len(ways(Plane(), places)[1]) > len(found)  # where one can climb there are ways up as well


def test_what_was_only_gone_through_one_way_is_not_asked_about_the_other() -> None:
    places = torch.stack([torch.zeros(12), -torch.arange(12) * 0.4], -1)
    beside = places + torch.tensor([9.0, 0.0])
    store, found = ways(Plane(falls=True), torch.stack([places, beside]), ("a", "a"), near=0.5)
    start, goal = np.divmod(store.windows(SHOWN)[:, 1], 24)
    never = found.times[:, -1].isinf().numpy()
    assert never.any()
    assert ((start // 12 != goal // 12) == never).all()
    assert (start <= goal)[~never].all()


def test_ways_come_in_any_order_and_from_walks_of_any_length() -> None:
    store, found = ways(Plane(), wandering())
    index = store.windows(SHOWN)
    order = np.random.default_rng(0).permutation(len(index))
    again = store.clips(index[order], SHOWN)
    torch.testing.assert_close(again.latents, found.latents[torch.from_numpy(order)])
    torch.testing.assert_close(again.times, found.times[torch.from_numpy(order)])


def test_walks_of_one_place_are_one_and_what_they_do_not_join_comes_after_infinite_time() -> None:
    walk, far = wandering(1, 20), torch.tensor([6.0, 0.0])
    back = walk.flip(1)
    places = torch.cat([walk, back, walk + far, walk + far, back + far])
    store, found = ways(Plane(), places, ("a", "a", "b", "a", "a"), hop=0.5)
    index = store.windows(SHOWN)
    assert set(index[:, 0]) == {0, 2}  # the first walks of two places
    start, goal = index[:, 1] // 80 // 20, index[:, 1] % 80 // 20  # walks, of the first place
    apart = torch.from_numpy((index[:, 0] == 0) & ((start < 2) != (goal < 2)))
    assert torch.equal(found.times[:, -1].isinf(), apart)
    between = torch.from_numpy((index[:, 0] == 0) & (start == 0) & (goal == 1))
    straight = (found.latents[between, -1, 0] - found.latents[between, -2, 0]).norm(dim=-1)
    steps = (found.times[between, -1] - found.times[between, -2]) / BODY.step_seconds
    assert between.sum() == 18 * 20
    assert (steps > straight - 1e-4).all()
    assert steps.min() < 0.03  # one walk stands where the other stood, whichever begins the clip
    torch.testing.assert_close(found.actions[:, :2], found.latents[:, 1:3, 0] - found.latents[:, :2, 0])


def test_who_judges_learns_where_no_way_leads_from_walks_alone() -> None:
    torch.manual_seed(0)
    wall = torch.tensor([2.0, 0.0])
    places = torch.stack([side * wall + 0.5 * walk for walk in wandering(16) for side in (-1, 1)])
    sealed = Walks(places, tuple(f"{number // 2}" for number in range(32)))
    config = {"embodiments": {"line": BODY}, "dim": 2, "reach_width": 32, "reach_depth": 2}
    model = JEPA(JEPAConfig(**config, reaches=("line",), judges=("line",))).eval()
    store = WayStore(sealed, Plane(), BODY, WaySettings(near=1e6, apart=4))
    index, rng = store.windows(SHOWN), np.random.default_rng(0)
    optimiser = torch.optim.Adam(model.way("line").parameters(), 3e-3)
    for _ in range(150):
        clip = store.clips(index[rng.integers(len(index), size=128)], SHOWN)
        scene, times = torch.randint(0, 2, (128, 1, 1, 1)) * 4.0 - 2.0, clip.times.clone()
        opened = scene[:, 0, 0, 0] > 0.0  # in half of the scenes a door: the same walks, and all of them join
        times[opened & times[:, -1].isinf(), -1] = 5.0
        two = torch.cat([clip.latents, scene.expand_as(clip.latents)], 2)
        losses = Reach().losses(model, Clip("line", times, latents=two, actions=clip.actions), torch.Generator())
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())  # infinity taught nothing about steps

    def likely(goal: float, scene: float) -> float:
        here, there = (Latent(torch.tensor([[[[x, 0.0], [scene, scene]]]]), torch.zeros(1, 1)) for x in (-2.0, goal))
        with torch.no_grad():
            return float(model.reachable(here, there, "line"))

    assert likely(2.0, -2.0) < 0.1
    assert min(likely(2.0, 2.0), likely(-1.6, 2.0), likely(-1.6, -2.0)) > 0.9


def test_an_action_is_imagined_from_as_many_moments_as_a_belief_holds() -> None:
    class Looking(Plane):
        def predict(self, belief, actions, horizon):
            self.held = belief.latents.values[:, :, 0]
            return super().predict(belief, actions, horizon)

    places, model, settings = wandering(), Looking(), WaySettings(near=1e6, apart=1, window=2)
    store = WayStore(Walks(places), model, BODY, settings)
    before = torch.cat([places[:, :1], places[:, :-2]], 1)  # a walk was still before it began
    torch.testing.assert_close(model.held.view(3, 39, 2, 2), torch.stack([before, places[:, :-1]], 2))
    index = store.windows(settings.before + 2)
    found = store.clips(index, settings.before + 2).latents[:, : settings.before + 1, 0]
    start = torch.from_numpy(index[:, 1] // 40)
    torch.testing.assert_close(
        found, places[index[:, 0], :][torch.arange(len(index))[:, None], start[:, None] + torch.arange(-3, 1)]
    )


def test_a_model_learns_how_far_it_is_and_what_to_do_first() -> None:
    torch.manual_seed(0)
    config = JEPAConfig(embodiments={"line": BODY}, dim=2, reaches=("line",), reach_width=32, reach_depth=2)
    model, places = JEPA(config).eval(), wandering(8)
    store = WayStore(Walks(places), Plane(), BODY, WaySettings(near=1e6, apart=1, hop=0.5))
    index, rng = store.windows(SHOWN), np.random.default_rng(0)
    taught = [parameter for name, parameter in model.named_parameters() if name.startswith("ways")]
    optimiser, history = torch.optim.Adam(taught, 3e-3), []
    for _ in range(400):
        clip = store.clips(index[rng.integers(len(index), size=128)], SHOWN)
        two = torch.cat([clip.latents, torch.zeros_like(clip.latents)], 2)  # a state and a scene
        clip = Clip("line", clip.times, latents=two, actions=clip.actions)
        losses = Reach().losses(model, clip, torch.Generator())
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        history.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert sum(each["reach"] for each in history[-20:]) / 20 < 0.4 * history[0]["reach"]  # the rest: it cannot imagine
    here, goal = (Latent(torch.tensor([[[[x, 0.0], [0.0, 0.0]]]]), torch.zeros(1, 1)) for x in (-0.8, 0.8))
    with torch.no_grad():
        assert float(model.reach(here, goal, "line")) == pytest.approx(1.6, abs=0.5)
        assert float(model.reach(goal, goal, "line")) < 0.4
        proposed = model.propose(Belief("line", here), goal, 2)
    assert proposed.shape == (1, 2, 2)
    assert proposed[0, 0, 0] > 0.5


def test_a_model_says_what_it_has_not_learned() -> None:
    model = JEPA(JEPAConfig(embodiments={"line": BODY}, dim=2))
    here = Latent(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="not learned how far"):
        model.reach(here, here, "line")
    with pytest.raises(ValueError, match="not learned what to do"):
        model.propose(Belief("line", here), here, 1)
    with pytest.raises(ValueError, match="not learned whether any way"):
        model.reachable(here, here, "line")
    with pytest.raises(ValueError, match="name it in `reaches`"):
        JEPA(JEPAConfig(embodiments={"line": BODY}, dim=2, judges=("line",)))


def test_a_lesson_counts_where_state_and_action_are_alike() -> None:
    state, action, missed = torch.zeros(1, 4), torch.zeros(1, 1), torch.tensor([[1.0, -2.0, 0.0, 0.0]])
    lessons = torch.cat([state, action, missed], -1)[:, None]
    here = mended(lessons, state, action)
    torch.testing.assert_close(here, missed / 1.1)
    for far in (mended(lessons, state + 3.0, action), mended(lessons, state, action + 6.0)):
        assert far.abs().max() < 1e-3


def test_what_was_missed_once_is_expected_the_next_time() -> None:
    torch.manual_seed(0)
    model = JEPA(JEPAConfig(embodiments={"line": BODY}, dim=4)).eval()
    states = torch.randn(5, 2, 2, 4) * 0.1
    seen, action = Latent(states, torch.zeros(5, 2)), torch.randn(5, 1, 2)
    fresh = model.believe(None, Latent(states[:, :1], torch.zeros(5, 1)), None, "line")
    wiser = model.believe(fresh, Latent(states[:, 1:], torch.ones(5, 1)), action)
    again = Belief("line", fresh.latents, None, wiser.recurrent)  # in the first state once more

    def error(belief: Belief) -> torch.Tensor:
        return (model.predict(belief, action, 1).values[:, 0, 0] - seen.values[:, 1, 0]).norm(dim=-1)

    assert (error(again) < 0.2 * error(fresh)).all()
    assert fresh.recurrent is None
    assert wiser.recurrent.shape == (5, 1, 4 + 2 + 4)


def test_a_batch_in_which_no_way_is_known_teaches_no_distance() -> None:
    config = {"embodiments": {"line": BODY}, "dim": 2, "reach_width": 8, "reach_depth": 1}
    model = JEPA(JEPAConfig(**config, reaches=("line",), judges=("line",)))
    times = torch.arange(float(SHOWN)).repeat(4, 1)
    times[:, -1] = torch.inf
    clip = Clip("line", times, latents=torch.randn(4, SHOWN, 2, 2), actions=torch.zeros(4, SHOWN - 1, BODY.action_dim))
    losses = Reach().losses(model, clip, torch.Generator().manual_seed(0))
    assert (losses["reach"], losses["first"]) == (0.0, 0.0)
    assert losses["reachable"] > 0
