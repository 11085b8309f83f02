"""The contract accepts a sound model and rejects each kind of unsound one, for the right reason."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ami.models.baselines import CopyLast, Pixels
from ami.models.contract import ContractError, check
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

POINT = Embodiment("point", 0.4, (-1.0, -1.0), (1.0, 1.0))
FILM = Embodiment("film", 0.4)


class Good(WorldModel):
    """A linear eye, a nonlinear step of dynamics, and a memory of three steps."""

    def __init__(self):
        super().__init__()
        self.embodiments, self.latent_shape = {"point": POINT, "film": FILM}, (2, 3)
        generator = torch.Generator().manual_seed(0)
        self.eye = nn.Parameter(torch.randn(48, 6, generator=generator))
        self.pull = nn.Parameter(torch.randn(2, 6, generator=generator))
        self.register_buffer("calls", torch.zeros(()))
        self.dropout = nn.Dropout(0.5)

    def encode(self, clip):
        if clip.video is None:
            raise ValueError("this model needs video, and the clip has none")
        values = self.dropout(clip.video.flatten(2).float() / 255) @ self.eye
        return Latent(values.unflatten(2, (2, 3)), clip.times)

    def believe(self, belief, seen, actions, embodiment=""):
        if belief is not None:
            held, embodiment = belief.latents, belief.embodiment
            seen = Latent(torch.cat([held.values, seen.values], 1), torch.cat([held.times, seen.times], 1))
            actions = actions if actions is None else torch.cat([belief.actions, actions], 1)
        kept = None if actions is None else actions[:, max(actions.shape[1] - 2, 0) :]
        return Belief(embodiment, Latent(seen.values[:, -3:], seen.times[:, -3:]), kept)

    def predict(self, belief, actions, horizon):
        state, futures = belief.latents.values[:, -1].flatten(1), []
        velocity = state - belief.latents.values[:, -2].flatten(1) if belief.latents.steps > 1 else 0
        for step in range(horizon):
            push = 0 if actions is None else actions[:, step] @ self.pull
            velocity = 0.5 * velocity + push
            state = torch.tanh(state + velocity)
            futures.append(state)
        return Latent(torch.stack(futures, 1).unflatten(2, (2, 3)), self.times(belief, horizon))

    def times(self, belief, horizon):
        return belief.latents.times[:, -1:] + 0.4 * torch.arange(1, horizon + 1)

    def energy(self, belief, actions, future):
        return (self.predict(belief, actions, future.steps).values - future.values).square().mean((2, 3))


def a_clip(embodiment="point", steps=6):
    generator = torch.Generator().manual_seed(1)
    return Clip(
        embodiment,
        0.4 * torch.arange(steps).repeat(4, 1) + 7,
        torch.randint(0, 256, (4, steps, 1, 3, 4, 4), dtype=torch.uint8, generator=generator),
        actions=torch.rand(4, steps - 1, 2, generator=generator) * 2 - 1 if embodiment == "point" else None,
    )


@pytest.mark.parametrize(("embodiment", "steps"), [("point", 6), ("point", 5), ("point", 4), ("film", 6)])
def test_a_sound_model_conforms(embodiment, steps):
    check(Good(), a_clip(embodiment, steps))


def test_a_sound_model_is_left_as_it_was():
    model = Good()
    model.train()
    model.dropout.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check(model, a_clip())
    assert model.training
    assert not model.dropout.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_baselines_conform_but_ignore_actions():
    for model in (CopyLast(Good()), Pixels({"point": POINT}, side=2)):
        check(model, a_clip(), actions_matter=False)
        with pytest.raises(ContractError, match="ignores its actions"):
            check(model, a_clip())


def test_copy_last_repeats_the_present_and_pixels_are_means_of_squares():
    clip = a_clip()
    pixels = Pixels({"point": POINT}, side=2)
    seen = pixels.encode(clip)
    # Token 1 is the upper right square; the last frame of a step counts.
    square = clip.video[2, 3, -1, :, :2, 2:].float().mean((1, 2)) / 255
    torch.testing.assert_close(seen.values[2, 3, 1], square)
    belief = pixels.believe(None, seen, clip.actions, "point")
    future = pixels.predict(belief, None, 3)
    assert torch.equal(future.values, seen.values[:, -1:].repeat(1, 3, 1, 1))
    torch.testing.assert_close(future.times[0], clip.times[0, -1] + torch.tensor([0.4, 0.8, 1.2]))
    off = Latent(future.values + 0.5, future.times)
    torch.testing.assert_close(pixels.energy(belief, None, off), torch.full((4, 3), 0.25))


def _changed(verb, change):
    """A class like Good, one verb of which is answered by ``change(model, its arguments, the good answer)``."""

    def answer(self, *arguments):
        return change(self, arguments, getattr(Good, verb)(self, *arguments))

    return type("Broken", (Good,), {verb: answer})


def _values(verb, change):
    return _changed(verb, lambda model, given, good: Latent(change(good.values), good.times))


def _retimed(values):
    """Predicts ``values(belief latents, horizon)`` at the right times: only the values give it away."""
    return lambda model, given, good: Latent(values(given[0].latents.values, given[2]), good.times)


def _mutates_video(model, given, good):
    given[0].video.bitwise_not_()
    return good


def _mutates_actions(model, given, good):
    given[1].clamp_(-0.5, 0.5)
    return good


def _counts_calls(model, given, good):
    model.calls += 1
    return good


def _hidden_count(model, given, good):
    model.asked = getattr(model, "asked", 0) + 1
    return Latent(good.values + model.asked, good.times)


def _hidden_belief(model, given, good):
    model.hidden = good
    return good


def _cut(model, given, good):
    return Latent(good.values.detach(), good.times)


class _Blind(Good):
    def encode(self, clip):
        return Good.encode(self, clip) if clip.video is not None else Latent(torch.ones(4, 6, 2, 3), clip.times)


class _Crashes(Good):
    def encode(self, clip):
        values = (clip.video.flatten(2).float() / 255) @ self.eye
        return Latent(values.unflatten(2, (2, 3)), clip.times)


class _Rambles(Good):
    def encode(self, clip):
        if clip.video is None:
            raise ValueError("no video.\nTry again.\n")
        return super().encode(clip)


class _UsesHiddenBelief(_changed("believe", _hidden_belief)):
    def predict(self, belief, actions, horizon):
        return super().predict(self.hidden, actions, horizon)


class _DiscountsByHorizon(Good):
    def predict(self, belief, actions, horizon):
        good = super().predict(belief, actions, horizon)
        return Latent(good.values / horizon, good.times)


class _LooksAtLaterActions(Good):
    def predict(self, belief, actions, horizon):
        return super().predict(belief, None if actions is None else actions.flip(1), horizon)


class _ForgetsPieces(Good):
    def believe(self, belief, seen, actions, embodiment=""):
        good = super().believe(belief, seen, actions, embodiment)
        if belief is None:
            return good
        return Belief(good.embodiment, seen, None if actions is None else actions[:, 1:])


BROKEN = {
    "wrong rank": (_values("encode", lambda z: z.flatten(2)), r"encode gave the shape \(4, 6, 6\)"),
    "tokens and dim exchanged": (_values("encode", lambda z: z.mT), r"encode gave the shape \(4, 6, 3, 2\)"),
    "drops a step": (_values("encode", lambda z: z[:, 1:]), r"encode gave the shape \(4, 5, 2, 3\)"),
    "NaN latents": (_values("encode", lambda z: z / 0), "encode gave numbers that are not finite"),
    "forgets the clip's times": (_changed("encode", lambda m, g, z: Latent(z.values, z.times - 7)), "the clip's times"),
    "no Latent": (_changed("encode", lambda m, g, z: z.values), "encode returned a Tensor; a Latent was wanted"),
    "collapsed": (_values("encode", torch.ones_like), "every row the same"),
    "encode lets rows talk": (_values("encode", lambda z: z - z.mean(0)), "encode lets rows talk"),
    "encode normalises over time": (_values("encode", lambda z: z - z.mean(1, True)), "looks into the future"),
    "encode sees one step ahead": (_values("encode", lambda z: z + z.roll(-1, 1)), "looks into the future"),
    "random encoder": (_values("encode", lambda z: z + torch.rand(())), "encode gave two answers"),
    "random predictor": (_values("predict", lambda z: z + torch.rand(())), "predict gave two answers"),
    "random energy": (_changed("energy", lambda m, g, e: e * torch.rand(())), "energy gave two answers"),
    "counts its calls": (_changed("predict", _hidden_count), "predict gave two answers"),
    "mutates the clip": (_changed("encode", _mutates_video), "encode mutates its input"),
    "mutates the actions": (_changed("predict", _mutates_actions), "predict mutates its input"),
    "mutates its own buffers": (_changed("energy", _counts_calls), "energy mutates its input or the model's buffers"),
    "returns its belief's latents": (_changed("predict", lambda m, g, z: g[0].latents), "repeats its past"),
    "repeats the latest past": (_changed("predict", _retimed(lambda held, h: held[:, -h:])), "repeats its past"),
    "past and then future": (
        _changed("predict", lambda m, g, z: Latent(torch.cat([g[0].latents.values, z.values], 1), z.times)),
        "the past again and then the future",
    ),
    "one step too many": (_values("predict", lambda z: torch.cat([z, z[:, :1]], 1)), r"predict gave the shape \(4, 4"),
    "starts the future at the present": (
        _changed("predict", lambda m, g, z: Latent(z.values, z.times - 0.4)),
        "times that follow",
    ),
    "predict lets rows talk": (_values("predict", lambda z: z - 0.1 * z.mean(0)), "predict lets rows talk"),
    "energy lets rows talk": (_changed("energy", lambda m, g, e: e.softmax(0)), "energy lets rows talk"),
    "keeps its belief to itself": (_UsesHiddenBelief, r"predict gave the shape|lets rows talk"),
    "depends on the horizon": (_DiscountsByHorizon, "differs from the start of"),
    "acts on later actions": (_LooksAtLaterActions, "differs from the start of"),
    "ignores actions": (_changed("predict", lambda m, g, z: Good().predict(g[0], None, g[2])), "ignores its actions"),
    "no gradient": (_changed("predict", _cut), "no finite gradient"),
    "NaN energy": (_changed("energy", lambda m, g, e: e * float("nan")), "energy gave numbers that are not finite"),
    "energy of the whole future": (_changed("energy", lambda m, g, e: e.mean(1)), r"energy gave the shape \(4,\)"),
    "energy upside down": (_changed("energy", lambda m, g, e: -e), "energy must be lower"),
    "energy blind to the future": (_changed("energy", lambda m, g, e: torch.ones_like(e)), "energy must be lower"),
    "forgets when it goes on": (_ForgetsPieces, "in two pieces"),
    "forgets its embodiment": (_changed("believe", lambda m, g, b: replace(b, embodiment="")), "holds ''"),
    "holds old steps": (
        _changed("believe", lambda m, g, b: replace(b, latents=Latent(b.latents.values, b.latents.times - 0.4))),
        "its last time",
    ),
    "an action too many": (
        _changed("believe", lambda m, g, b: replace(b, actions=torch.zeros(len(b), b.latents.steps, 2))),
        "one action fewer",
    ),
    "perceives nothing at all": (_Blind, "without observations; it must raise"),
    "crashes on absence": (_Crashes, "without observations with AttributeError"),
    "rambles on absence": (_Rambles, "one sentence"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_unsound_model_is_rejected_for_its_fault(name):
    model, reason = BROKEN[name]
    with pytest.raises(ContractError, match=reason):
        check(model(), a_clip())


def test_a_model_without_gradients_may_say_so():
    check(_changed("predict", _cut)(), a_clip(), differentiable=False)


def test_a_film_model_that_repeats_its_earliest_past_is_found_without_the_help_of_actions():
    model = _changed("predict", _retimed(lambda held, horizon: held[:, :horizon]))()
    with pytest.raises(ContractError, match="repeats its past"):
        check(model, a_clip("film"))


def test_a_still_past_may_be_imagined_again():
    clip = a_clip()
    still = replace(clip, video=clip.video[:, :1].repeat(1, 6, 1, 1, 1, 1))
    check(CopyLast(Good()), still, actions_matter=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda clip: replace(clip, embodiment="dog"), "'dog'.*knows point, film"),
        (lambda clip: clip.between(0, 3), "4 rows of 3 steps"),
        (lambda clip: clip.rows(slice(1)), "1 rows of 6"),
        (lambda clip: replace(clip, actions=None), "has actions and the clip has none"),
    ],
)
def test_an_unfit_clip_is_the_callers_mistake(change, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        check(Good(), change(a_clip()))
    assert caught.type is ValueError


class Reaching(Good):
    """Counts its steps by the distance of latents, and goes nowhere; ``fault`` says what is wrong with it."""

    def __init__(self, fault=""):
        super().__init__()
        self.reaches, self.judges, self.fault = ("point",), ("point",), fault

    def reach(self, now, goal, embodiment):
        far = (now.values - goal.values).square().mean((2, 3))
        return {"negative": far - 100, "steps": far + far.sum(1, keepdim=True), "shape": far[:, :1]}.get(
            self.fault, far
        )

    def reachable(self, now, goal, embodiment):
        likely = torch.full(now.times.shape, 0.5)
        return {"odds": likely + 1.0, "doubts": likely[0]}.get(self.fault, likely)

    def propose(self, belief, goal, horizon):
        return torch.full((len(belief), horizon, 2), 3.0 if self.fault == "bounds" else 0.0)


def test_who_says_that_it_reaches_is_asked_how_far():
    check(Reaching(), a_clip())
    check(Reaching("negative"), a_clip("film"))  # a film has no actions, and it does not say that it reaches there
    for fault, message in (
        ("negative", "fewer than no steps"),
        ("steps", "look at another"),
        ("bounds", "outside of the embodiment's bounds"),
        ("shape", "reach"),
        ("odds", "no probability"),
        ("doubts", "reachable"),
    ):
        with pytest.raises(ContractError, match=message):
            check(Reaching(fault), a_clip())


class Hesitating(Good):
    """Ever less sure of what it imagines, by the same for every step; ``fault`` says what is wrong with it."""

    def __init__(self, fault=""):
        super().__init__()
        self.unsure, self.fault = ("point",), fault

    def uncertainty(self, imagined, actions, embodiment):
        expected = torch.ones_like(imagined.times).cumsum(1)
        return {
            "negative": expected - 2,
            "falls": expected.flip(1),
            "shape": expected[:, :1],
            "ahead": expected + imagined.steps,
            "NaN": expected / 0 * 0,
        }.get(self.fault, expected)


def test_who_says_that_it_is_unsure_is_asked_how_much():
    check(Hesitating(), a_clip())
    check(Hesitating("negative"), a_clip("film"))  # nobody acts in a film, and it does not say that it is unsure there
    for fault, message in (
        ("negative", "below none"),
        ("falls", "fell along the path"),
        ("shape", "uncertainty"),
        ("ahead", "looks ahead"),
        ("NaN", "not finite"),
    ):
        with pytest.raises(ContractError, match=message):
            check(Hesitating(fault), a_clip())
