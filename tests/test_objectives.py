"""Each regulariser falls on a healthy code and rises on a collapsed one, and the rollout pays for what was imagined."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ami import parallel
from ami.models.jepa import JEPA, sized
from ami.objectives.prediction import Dynamics, Prediction, PredictionSettings, rollout_loss
from ami.objectives.regularizers import clip_variance_hinge, covariance, sigreg, unsteadiness, variance_hinge
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel
from two_processes import both

PAIR = Embodiment("pair", 0.4, (-1.0, -1.0), (1.0, 1.0), (0.1, -0.2), (0.5, 0.8))
EVERYTHING = PredictionSettings(rollout=2, gaussian=0.2, variance=0.5, covariance=0.4, clip_variance=0.6)
NOTHING = PredictionSettings(**dict.fromkeys(vars(EVERYTHING), 0.0) | {"rollout": 2})


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _gaussian(samples: int = 512, dim: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(samples, dim, generator=_generator(seed))


def _direct(values: Tensor, generator: torch.Generator) -> Tensor:
    """Epps-Pulley along the same directions, with a cosine and a sine at every knot."""
    directions = functional.normalize(torch.randn(values.shape[1], 256, generator=generator).to(values), dim=0)
    knots = torch.linspace(0, 3, 17, dtype=values.dtype)
    angles = (values @ directions)[..., None] * knots
    weight = torch.exp(-(knots**2) / 2)
    gap = (angles.cos().mean(0) - weight) ** 2 + angles.sin().mean(0) ** 2
    return torch.trapezoid(gap * weight, knots).mean()


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 8.0])
def test_sigreg_is_the_weighted_distance_of_characteristic_functions(scale: float) -> None:
    values = (0.2 + scale * _gaussian()).double().requires_grad_()
    single = values.detach().float().requires_grad_()
    loss, wanted = sigreg(single, _generator()), _direct(values, _generator())
    loss.backward()
    wanted.backward()
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5, abs=1e-7)
    torch.testing.assert_close(single.grad.double(), values.grad, rtol=1e-4, atol=1e-8)


def test_sigreg_of_one_point_has_a_closed_form() -> None:
    """All samples at the origin: the characteristic function is 1, so the gap is (1 - exp(-t²/2))²."""
    knots = np.linspace(0, 3, 17)
    weight = np.exp(-(knots**2) / 2)
    wanted = np.trapezoid((1 - weight) ** 2 * weight, knots)
    assert float(sigreg(torch.zeros(64, 3), _generator())) == pytest.approx(wanted, rel=1e-5)


def test_the_gradient_of_sigreg_is_exact() -> None:
    values = _gaussian(6, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sigreg(x, _generator(), directions=4), values)


_COLLAPSED = {
    "constant": lambda z: torch.full_like(z, 0.7),
    "small": lambda z: 0.1 * z,
    "one dimension": lambda z: z[:, :1].expand_as(z),
    "two points": lambda z: z[:, :1].sign().expand_as(z),
    "shifted": lambda z: z + 1,
}


@pytest.mark.parametrize("name", _COLLAPSED)
def test_sigreg_rises_on_a_collapsed_code(name: str) -> None:
    healthy = float(sigreg(_gaussian(), _generator()))
    assert healthy < 0.003  # of order 1 / samples
    assert float(sigreg(_COLLAPSED[name](_gaussian()), _generator())) > 5 * healthy


@pytest.mark.parametrize("name", ["small", "two points", "shifted"])
def test_following_sigreg_makes_a_code_gaussian(name: str) -> None:
    values = (_COLLAPSED[name](_gaussian(256, 2)) + 0.1 * _gaussian(256, 2, seed=5)).requires_grad_()
    optimiser = torch.optim.Adam([values], 0.05)
    for step in range(150):
        loss = sigreg(values, _generator(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    values = values.detach()
    torch.testing.assert_close(values.T.cov(), torch.eye(2), rtol=0, atol=0.4)  # it hardly sees the tails
    assert values.mean(0).abs().max() < 0.15
    assert float(sigreg(values, _generator(999))) < 0.003
    assert 0.6 < float((values[:, 0].abs() < 1).float().mean()) < 0.76  # 0.68 of a Gaussian; two points have 0 or 1


def test_the_hinge_rises_where_a_dimension_does_not_vary() -> None:
    healthy, half = 2 * _gaussian(), 2 * _gaussian()
    half[:, :2] = 3.0
    assert float(variance_hinge(healthy)) == 0.0
    assert float(variance_hinge(half)) == pytest.approx(0.5 * (1 - 0.01), abs=1e-3)  # sqrt(1e-4) keeps its slope finite
    assert float(variance_hinge(torch.full((9, 3), 5.0))) == pytest.approx(0.99, abs=1e-4)


def test_covariance_rises_where_dimensions_repeat_each_other() -> None:
    values = _gaussian(4096)
    assert float(covariance(values)) < 0.01
    same = values[:, :1].expand(-1, 4)
    assert float(covariance(same)) == pytest.approx(3 * float(same[:, 0].var(correction=0)) ** 2, rel=1e-4)
    assert float(covariance(-same)) == pytest.approx(float(covariance(same)))
    assert float(covariance(values + 7)) == pytest.approx(float(covariance(values)), rel=0.05)


def test_a_code_that_only_tells_clips_apart_is_steady_and_pays_the_clip_hinge() -> None:
    generator = _generator()
    moving = torch.randn(32, 9, 4, generator=generator) * 2
    slow = torch.randn(32, 1, 4, generator=generator).expand(32, 9, 4) * 2
    assert float(clip_variance_hinge(moving)) < 0.05 < 0.98 < float(clip_variance_hinge(slow))
    assert float(unsteadiness(slow)) < 1e-10
    assert float(unsteadiness(moving)) == pytest.approx(float(moving.var(1, correction=0).mean()))
    # The hinge over the whole batch would not have noticed.
    assert float(variance_hinge(slow.flatten(0, 1))) < 0.05


class Adder(WorldModel):
    """Knows its world exactly: a state moves by its action."""

    embodiments = {"pair": PAIR}  # noqa: RUF012
    latent_shape = (1, 2)

    def predict(self, belief: Belief, actions: Tensor, horizon: int) -> Latent:
        moved = belief.latents.values[:, -1:] + actions.cumsum(1)[:, :, None]
        return Latent(moved, torch.zeros(len(belief), horizon))

    def energy(self, belief: Belief, actions: Tensor, future: Latent) -> Tensor:
        return (self.predict(belief, actions, future.steps).values - future.values).square().mean((2, 3))


def _walk(steps: int = 7) -> tuple[Latent, Clip]:
    actions = torch.rand(5, steps - 1, 2, generator=_generator()) * 2 - 1
    places = torch.cat([torch.zeros(5, 1, 2), actions.cumsum(1)], 1)
    times = 0.4 * torch.arange(steps).expand(5, steps)
    return Latent(places[:, :, None], times), Clip("pair", times, actions=actions)


@pytest.mark.parametrize(("rollout", "window"), [(1, 1), (4, 1), (3, 3)])
def test_the_rollout_of_a_perfect_model_costs_nothing(rollout: int, window: int) -> None:
    seen, clip = _walk()
    assert float(rollout_loss(Adder(), seen, clip, rollout=rollout, window=window)) < 1e-12


def test_the_rollout_pays_for_wrong_actions() -> None:
    seen, clip = _walk()
    wrong = {
        "sign": -clip.actions,
        "row": clip.actions.roll(1, 0),
        "one step late": clip.actions.roll(1, 1),
    }
    for actions in wrong.values():
        assert float(rollout_loss(Adder(), seen, Clip("pair", clip.times, actions=actions), rollout=3)) > 0.3
    assert float(rollout_loss(Adder(), Latent(-seen.values, seen.times), clip, rollout=3)) > 0.3


def test_the_rollout_compares_every_step_that_it_can() -> None:
    """By hand: from each start whose future is known, a constant drift d costs (d k)² at the k-th step."""
    seen, clip = _walk()
    drifting = Latent(seen.values + 0.1 * torch.arange(7.0)[:, None, None], seen.times)
    assert float(rollout_loss(Adder(), drifting, clip, rollout=3)) == pytest.approx(0.01 * (1 + 4 + 9) / 3, rel=1e-4)
    last = Latent(seen.values.clone(), seen.times)
    last.values[:, -1] += 1.0  # only the last start sees it, at the last of its three steps
    assert float(rollout_loss(Adder(), last, clip, rollout=3)) == pytest.approx(1 / 12, rel=1e-4)
    with pytest.raises(ValueError, match=r"a clip of 7 steps is too short for 5 steps ahead of 3; give .* at least 8"):
        rollout_loss(Adder(), seen, clip, rollout=5, window=3)


def test_a_displaced_clip_asks_for_the_same_changes() -> None:
    seen, clip = _walk()
    displaced = torch.randn(5, 1, 2, generator=_generator(3))
    assert float(rollout_loss(Adder(), seen, clip, rollout=3, displaced=displaced)) < 1e-12

    class Spring(Adder):
        """Believes that everything is pulled to the origin."""

        def predict(self, belief: Belief, actions: Tensor, horizon: int) -> Latent:
            free = super().predict(belief, actions, horizon)
            return Latent(free.values - 0.5 * belief.latents.values[:, -1:], free.times)

    near, far = (float(rollout_loss(Spring(), seen, clip, rollout=3, displaced=k * displaced)) for k in (0, 5))
    assert far > 2 * near


def _jepa(window: int = 1) -> JEPA:
    torch.manual_seed(0)
    config = sized("baby", {"pair": PAIR, "film": Embodiment("film", 0.1)}, picture=16, window=window)
    model = JEPA(config)
    # A new predictor's last layer is zero, which would hide most of its gradient.
    torch.nn.init.normal_(model.predictor.change.weight, std=0.1)
    return model


def _clip(rows: int = 8, steps: int = 5) -> Clip:
    generator = _generator(2)
    video = torch.randint(0, 256, (rows, steps, 1, 3, 16, 16), dtype=torch.uint8, generator=generator)
    actions = torch.rand(rows, steps - 1, 2, generator=generator) * 2 - 1
    return Clip("pair", 0.4 * torch.arange(steps).repeat(rows, 1), video, actions=actions)


def _taught(clip: Clip) -> dict[str, Tensor]:
    model = _jepa()
    objective = Prediction(model, EVERYTHING)
    losses = objective.losses(model, clip, _generator(7))
    sum(losses.values()).backward()
    both_parts = torch.nn.ModuleList([model, objective])
    parallel.average_gradients(both_parts)
    found = {f"loss {name}": parallel.mean(loss.detach()) for name, loss in losses.items()}
    found |= {f"gradient {n}": p.grad for n, p in both_parts.named_parameters() if p.grad is not None}
    return found | {f"statistic {name}": value for name, value in model.named_buffers()}


def on_each(rank: int) -> dict[str, Tensor]:
    clip = _clip()
    return _taught(clip.rows(torch.arange(len(clip)).chunk(2)[rank]))


def test_two_processes_learn_from_halves_what_one_learns_from_the_whole() -> None:
    whole, ranks = _taught(_clip()), both(on_each)
    assert len([name for name in whole if name.startswith("loss")]) == len(vars(EVERYTHING))  # each, and the prediction
    for name, value in whole.items():
        for rank in ranks:
            # (A bias before a normalisation has no gradient but rounding.)
            torch.testing.assert_close(rank[name], value, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
            assert torch.equal(rank[name], ranks[0][name]) or name.startswith("gradient"), name
    halves = [_taught(_clip().rows(part)) for part in torch.arange(8).chunk(2)]
    alone = torch.stack([half["gradient 0.encoder.read.pair.weight"] for half in halves]).mean(0)
    assert (alone - whole["gradient 0.encoder.read.pair.weight"]).abs().max() > 1e-3, (
        "halves by themselves learn otherwise"
    )


def test_every_weight_switches_its_loss_on_and_scales_it() -> None:
    model, clip = _jepa(), _clip()
    once = Prediction(model, EVERYTHING)
    assert set(Prediction(model, NOTHING).losses(model, clip, _generator())) == {"prediction"}
    whole = {name: float(loss.detach()) for name, loss in once.losses(model, clip, _generator()).items()}
    for name in ("scene_steady", "inverse", "variance", "covariance", "clip_variance"):
        twice = Prediction(model, replace(NOTHING, **{name: 2.0}))
        twice.load_state_dict(once.state_dict())
        found = twice.losses(model, clip, _generator())
        assert set(found) == {"prediction", name}
        assert float(found[name].detach()) == pytest.approx(whole[name] * 2.0 / getattr(EVERYTHING, name), rel=1e-4)


def test_the_inverse_head_must_read_the_action_and_not_its_mirror() -> None:
    model, clip = _jepa(), _clip(rows=16)
    objective = Prediction(model, replace(NOTHING, inverse=1.0))
    optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], 3e-3)
    for _ in range(60):
        loss = objective.losses(model, clip, _generator())["inverse"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    mirrored = Clip("pair", clip.times, clip.video, actions=-clip.actions)
    assert float(loss.detach()) < 0.3 < 1.0 < float(objective.losses(model, mirrored, _generator())["inverse"].detach())


def test_films_have_no_inverse_model_and_dynamics_only_predict() -> None:
    model, clip = _jepa(window=2), _clip()
    film = Clip("film", clip.times, clip.video)
    losses = Prediction(model, PredictionSettings(rollout=2)).losses(model, film, _generator())
    assert "inverse" not in losses
    latents = Clip("pair", clip.times, actions=clip.actions, latents=torch.randn(8, 5, 2, 16))
    assert list(Dynamics(2).losses(model, latents, _generator())) == ["prediction"]
