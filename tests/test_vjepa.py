"""A V-JEPA keeps the promises of every world model, looks ahead only where it says so, and refuses in one sentence."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from ami.models import checkpoint
from ami.models.contract import ContractError, check
from ami.models.vjepa import VJEPA, VJEPAConfig, normed, sized
from ami.types import Belief, Clip, Embodiment, Latent

FILM = Embodiment("film", 0.2)
ARM = Embodiment("arm", 0.2, (-1.0,), (1.0,))
SMALL = {"width": 24, "depth": 2, "heads": 2, "predictor_width": 16, "predictor_depth": 2, "predictor_heads": 2}


def built(**settings) -> VJEPA:
    """A new model whose hidden tokens differ, as after training."""
    settings = {"embodiments": {"film": FILM}, "picture": 32, "slots": 4, **SMALL, **settings}
    return grown(VJEPAConfig(**settings))


def grown(config: VJEPAConfig) -> VJEPA:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = VJEPA(config).eval()
        torch.nn.init.normal_(model.predictor.hidden)
    return model


def clip(rows: int = 2, steps: int = 6, side: int = 32, frames: int = 2) -> Clip:
    draw = torch.Generator().manual_seed(3)
    video = torch.randint(0, 256, (rows, steps, frames, 3, side, side), dtype=torch.uint8, generator=draw)
    return Clip("film", 7 + 0.2 * torch.arange(steps).repeat(rows, 1), video)


@pytest.mark.parametrize("size", ["baby", "tiny"])
def test_it_conforms(size: str) -> None:
    model = grown(sized(size, {"film": FILM}))
    assert model.causal
    check(model, clip(3, side=64))
    assert model.encode(clip(side=64)).values.shape == (2, 6, *model.latent_shape)


@torch.no_grad()
def test_one_that_looks_ahead_conforms_and_says_so() -> None:
    model = built(causal=False)
    assert not model.causal
    check(model, clip(3))
    whole, start = model.encode(clip()).values, model.encode(clip().between(0, 5)).values
    assert (whole[:, :5] - start).abs().max() > 1e-2
    model.causal = True  # a lie is found out
    with pytest.raises(ContractError, match="looks into the future"):
        check(model, clip(3))


@torch.no_grad()
def test_the_future_is_filled_in_a_window_at_a_time() -> None:
    model = built()
    assert model.window == 2
    seen = model.encode(clip())
    belief = model.believe(None, seen, None, "film")
    torch.testing.assert_close(belief.latents.values, seen.values[:, -2:])
    far = model.predict(belief, None, 5)
    assert far.values.shape == (2, 5, *model.latent_shape)
    torch.testing.assert_close(far.times, 8 + 0.2 * torch.arange(1, 6).repeat(2, 1))

    tokens = model.latent_shape[0]
    number = torch.arange(4 * tokens).expand(2, -1)
    first = model.predictor(
        belief.latents.values.flatten(1, 2), number[:, : 2 * tokens], number[:, 2 * tokens :], slots=4
    )
    torch.testing.assert_close(far.values[:, :2], first.unflatten(1, (2, tokens)))
    # What was imagined is then held in place of what was seen.
    imagined = model.believe(belief, Latent(far.values[:, :2], far.times[:, :2]), None)
    torch.testing.assert_close(model.predict(imagined, None, 3).values, far.values[:, 2:])
    # A belief of one step is asked about steps 1 and 2 of a shorter clip.
    young = model.believe(None, Latent(seen.values[:, :1], seen.times[:, :1]), None, "film")
    assert model.predict(young, None, 3).values.shape == far.values[:, :3].shape


@torch.no_grad()
def test_energy_is_the_distance_from_what_was_imagined_in_the_space_of_targets() -> None:
    model = built()
    belief = model.believe(None, model.encode(clip()), None, "film")
    own = model.predict(belief, None, 3)
    assert model.energy(belief, None, own).abs().max() < 1e-5
    torch.testing.assert_close(normed(5 * own.values + 1), normed(own.values), atol=1e-3, rtol=1e-3)
    other = Latent(own.values.roll(1, 0), own.times)
    by_hand = torch.stack(
        [
            torch.stack(
                [functional.l1_loss(normed(other.values[row, t]), normed(own.values[row, t])) for t in range(3)]
            )
            for row in range(2)
        ]
    )
    torch.testing.assert_close(model.energy(belief, None, other), by_hand)


@torch.no_grad()
def test_own_numbers_tell_a_jump_from_a_film_that_goes_on() -> None:
    model = built(picture=64, own=4, points=2, causal=False)
    check(model, clip(side=64))
    film = clip(side=64)
    assert film.video is not None
    assert model.own is not None
    assert model.encode(film).values.shape == (2, 6, 16, 24 + 2 * 4)
    film.video[:] = film.video[:, :1, :1]  # all stands still; then, in the first film, two patches change places
    film.video[0, 3:, 1:, :, :16, :32] = film.video[0, 3:, 1:, :, :16, :32].roll(16, -1)
    seen = model.encode(film)
    belief = model.believe(None, Latent(seen.values[:, :3], seen.times[:, :3]), None, "film")
    energy = model.energy(belief, None, Latent(seen.values[:, 3:], seen.times[:, 3:]))
    torch.testing.assert_close(energy[1], torch.full((3,), 0.04))
    here, there = model.own(film.video)[0].unflatten(0, (6, 16))[[2, 3]].unflatten(-1, (2, 4))
    worst = (there - here[:, 1:]).abs().mean(-1).amax(-1)
    assert (worst[:2] > 0.05).all()
    torch.testing.assert_close(energy[0], (worst + 0.04).log().mean().exp().expand(3))


@torch.no_grad()
def test_a_checkpoint_answers_as_the_model_did(tmp_path: Path) -> None:
    model = built(pictures=True, kinds=3, causal=False, own=3)
    checkpoint.save(tmp_path / "c", model, checkpoint.Provenance("test", checkpoint.CodeVersion("0")))
    again = checkpoint.load(tmp_path / "c")
    assert isinstance(again, VJEPA)
    assert again.config == model.config
    assert torch.equal(again.encode(clip()).values, model.encode(clip()).values)
    assert checkpoint.digest(tmp_path / "c") == checkpoint.digest(model)


def test_what_was_perceived_before_is_not_perceived_again() -> None:
    latents = torch.randn(2, 6, 4, 24)
    assert built().encode(Clip("film", torch.zeros(2, 6), latents=latents)).values is latents


MISTAKES: dict[str, Callable[[VJEPA], object]] = {
    "the clip has none; record one with a camera": lambda model: model.encode(Clip("film", torch.zeros(1, 3))),
    "pictures are 16 x 16 px; this model was built for 32 x 32": lambda model: model.encode(clip(side=16)),
    "the clip has 3 frames a step; this model was built for 2": lambda model: model.encode(clip(frames=3)),
    "not trained with the embodiment 'arm'; it knows film": lambda model: model.encode(Clip("arm", torch.zeros(1, 3))),
    "not trained with the embodiment ''": lambda model: model.believe(None, latent(), None),
    "'film' has no actions, and some were given; a film can only be watched": lambda model: model.predict(
        Belief("film", latent()), torch.zeros(1, 2, 1), 2
    ),
    "30 px cannot be cut in patches of 16$": lambda model: built(picture=30),
    "like points and own numbers, has patches of": lambda model: built(patch=4, stem="pieces"),
    "'arm' has actions, and a V-JEPA only watches; train a JEPA": lambda model: built(embodiments={"arm": ARM}),
    "a width of 22 cannot be shared by 2 heads in pairs of dimensions": lambda model: built(width=22),
    "a width of 16 cannot be shared by 3 heads": lambda model: built(predictor_heads=3),
    "there is no size 'vast'; choose one of baby, tiny, small, base, large, huge, giant": lambda model: sized(
        "vast", {"film": FILM}
    ),
    "pictures of 7 px were asked for; a model sees 16 px or more": lambda model: sized("baby", {}, picture=7),
    "colour": lambda model: built(colour="red"),
}


def latent() -> Latent:
    return Latent(torch.randn(1, 2, 4, 24), torch.zeros(1, 2))


@pytest.mark.parametrize("sentence", MISTAKES)
def test_what_it_cannot_do_it_says(sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        MISTAKES[sentence](built())
    assert sentence == "colour" or "\n" not in str(caught.value)


def test_the_one_dial_only_grows_to_the_sizes_of_the_papers() -> None:
    counts = {}
    for size in ("baby", "tiny", "small", "base", "large", "huge", "giant"):
        with torch.device("meta"):
            model = VJEPA(sized(size, {"film": FILM}))
        counts[size] = sum(p.numel() for p in model.encoder.parameters())
    assert all(1.5 * small < large for small, large in pairwise(counts.values()))
    # V-JEPA 2, table 12: 300M, 600M and 1B.
    for size, published in (("large", 3.0e8), ("huge", 6.3e8), ("giant", 1.01e9)):
        assert counts[size] == pytest.approx(published, rel=0.03)


def test_blocks_that_are_computed_anew_learn_the_same_and_keep_less() -> None:
    def learned(anew: bool) -> tuple[int, list[torch.Tensor]]:
        model, kept = built(anew=anew, depth=4).train(), 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        order = torch.randperm(16, generator=torch.Generator().manual_seed(1)).expand(2, -1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            (seen,) = model.encoder(model.check(clip(steps=4)), order[:, :9].sort(1).values)
            told = model.predictor(seen, order[:, :9].sort(1).values, order[:, 9:], slots=4)
        told.square().sum().backward()
        return kept, [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    (all_, usual), (few, anew) = learned(False), learned(True)
    assert len(usual) == len(anew) > 40
    assert all(torch.equal(one, other) for one, other in zip(usual, anew, strict=True))
    assert few < all_ / 2
