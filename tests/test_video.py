"""Tokens that are hidden never take part: what the encoder computes without them is what a mask would have made."""

import pytest
import torch
from torch import nn

from ami.nn.rotary import grid, turns
from ami.nn.video import MaskedPredictor, Own, Tubelets, VideoEncoder

SIDE, SLOTS, PATCH, WIDTH, ROWS = 3, 4, 4, 48, 2
TOKENS = SLOTS * SIDE**2
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def encoder(causal: bool = False, tiled: bool = False) -> VideoEncoder:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        stem = Tubelets(WIDTH, PATCH, 2, MEAN, STD, pictures=True)
        return VideoEncoder(stem, side=SIDE, width=WIDTH, depth=3, heads=2, causal=causal, tiled=tiled)


def film(seed: int = 0, frames: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    side = SIDE * PATCH
    return torch.randint(0, 256, (ROWS, SLOTS, frames, 3, side, side), dtype=torch.uint8, generator=draw)


def kept(share: float = 0.4, seed: int = 1) -> torch.Tensor:
    """Other tokens in each row, as many, ascending."""
    draw = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(TOKENS, generator=draw)[: int(share * TOKENS)].sort().values for _ in range(ROWS)]
    return torch.stack(rows)


def pick(tokens: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    return tokens.gather(1, number[..., None].expand(-1, -1, tokens.shape[-1]))


def masked(model: VideoEncoder, video: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """All tokens go through the same blocks, and nobody hears a hidden one: dear, and plainly right."""
    tokens = model.stem(video.flatten(0, 1)).unflatten(0, video.shape[:2]).flatten(1, 2)
    seen = torch.zeros(ROWS, TOKENS, dtype=torch.bool).scatter(1, visible, True)
    hears = seen[:, None, None, :] | torch.eye(TOKENS, dtype=torch.bool)  # itself, so that every row hears something
    if model.causal:
        slot = grid(SLOTS, SIDE, SIDE)[:, 0]
        hears = hears & (slot[:, None] >= slot)
    where = turns(grid(SLOTS, SIDE, SIDE), model.head, tiled=model.tiled)
    for block in model.blocks:
        tokens = block(tokens, where, hears)
    return pick(model.norm(tokens), visible)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tiled", [False, True])
@torch.no_grad()
def test_encoding_the_context_alone_is_masking_the_rest(causal: bool, tiled: bool) -> None:
    model, video, visible = encoder(causal, tiled), film(), kept()
    (alone,) = model(video, visible)
    torch.testing.assert_close(alone, masked(model, video, visible), atol=1e-5, rtol=0)
    # It is not what the tokens are in the company of all.
    assert (alone - pick(model(video)[0], visible)).abs().max() > 1e-2


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_all_tokens_visible_is_the_whole_film(causal: bool) -> None:
    model = encoder(causal)
    everything = torch.arange(TOKENS).expand(ROWS, -1)
    torch.testing.assert_close(model(film(), everything)[0], model(film())[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_pixels_of_hidden_tokens_change_nothing() -> None:
    model, visible, video = encoder(), kept(), film()
    shown = torch.zeros(ROWS, TOKENS, dtype=torch.bool).scatter(1, visible, True)
    pixels = shown.view(ROWS, SLOTS, 1, 1, SIDE, SIDE)
    pixels = pixels.repeat_interleave(PATCH, -2).repeat_interleave(PATCH, -1)
    other = torch.where(pixels, video, film(seed=9))
    assert (other != video).float().mean() > 0.5
    assert torch.equal(model(other, visible)[0], model(video, visible)[0])
    shown_too = torch.where(pixels, film(seed=9), video)
    assert (model(shown_too, visible)[0] - model(video, visible)[0]).abs().max() > 1e-2


@torch.no_grad()
def test_a_causal_step_hears_none_that_comes_later() -> None:
    video, later = film(), film()
    later[:, 2:] = film(seed=5)[:, 2:]
    first = 2 * SIDE**2
    for causal, same in ((True, True), (False, False)):
        one, other = encoder(causal)(video)[0], encoder(causal)(later)[0]
        assert torch.allclose(one[:, :first], other[:, :first], atol=1e-6) is same
        assert not torch.allclose(one[:, first:], other[:, first:], atol=1e-2)


@torch.no_grad()
def test_levels_are_the_normed_tokens_between_the_blocks() -> None:
    model = encoder()
    first, second, last = model(film(), levels=(0, 1, 2))
    assert torch.equal(last, model(film())[0])
    for level in (first, second, last):
        torch.testing.assert_close(level.mean(-1), torch.zeros(ROWS, TOKENS), atol=1e-5, rtol=0)
        torch.testing.assert_close(level.var(-1, correction=0), torch.ones(ROWS, TOKENS), atol=1e-3, rtol=0)
    model.blocks = nn.ModuleList(model.blocks[:1])
    assert torch.equal(model(film())[0], first)


@torch.no_grad()
def test_pixels_are_normalised_and_pictures_have_an_embedding_of_their_own() -> None:
    stem = encoder().stem
    assert isinstance(stem, Tubelets)
    # A convolution over time, rows and columns says the same.
    video = film().flatten(0, 1)
    cube = stem.project.weight.view(WIDTH, 3, 2, PATCH, PATCH)
    pixels = (video.transpose(1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1, 1)) / torch.tensor(STD).view(3, 1, 1, 1)
    by_convolution = nn.functional.conv3d(pixels, cube, stem.project.bias, stride=(2, PATCH, PATCH))
    torch.testing.assert_close(stem(video), by_convolution.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)

    picture = film(frames=1).flatten(0, 1)
    assert stem(picture).shape == (ROWS * SLOTS, SIDE**2, WIDTH)
    assert stem.picture is not None
    stem.picture.weight.zero_()
    assert torch.equal(stem(picture), stem.picture.bias.expand(ROWS * SLOTS, SIDE**2, -1))
    for frames in (1, 3):
        alone = Tubelets(WIDTH, PATCH, 2, MEAN, STD, pictures=False)
        with pytest.raises(ValueError, match=f"the clip has {frames} frames a step; this model was built for 2"):
            alone(film(frames=frames).flatten(0, 1))


@torch.no_grad()
def test_a_prediction_depends_on_what_is_seen_where_it_is_asked_and_on_the_kind_of_mask() -> None:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = MaskedPredictor(side=SIDE, tokens_width=WIDTH, width=24, depth=2, heads=2)
        context = torch.randn(ROWS, 14, WIDTH)
    nn.init.normal_(model.hidden)
    visible = kept()
    hidden = torch.stack([torch.tensor([n for n in range(TOKENS) if n not in row.tolist()]) for row in visible])
    said = model(context, visible, hidden, slots=SLOTS)
    assert said.shape == (ROWS, TOKENS - 14, WIDTH)
    # Asked in another order it says the same; the order of the context does not matter either.
    torch.testing.assert_close(model(context, visible, hidden.flip(1), slots=SLOTS), said.flip(1), atol=1e-5, rtol=0)
    turned_round = model(context.flip(1), visible.flip(1), hidden, slots=SLOTS)
    torch.testing.assert_close(turned_round, said, atol=1e-5, rtol=0)
    for other in (
        model(context.roll(1, 0), visible, hidden, slots=SLOTS),
        model(context, visible.roll(1, 0), hidden, slots=SLOTS),
        model(context, visible, hidden.roll(1, 0), slots=SLOTS),
        model(context, visible, hidden, slots=SLOTS, kind=1),
    ):
        assert (other - said).abs().max() > 1e-3
    # There are two kinds; a third is the first again.
    assert torch.equal(model(context, visible, hidden, slots=SLOTS, kind=2), said)


@torch.no_grad()
def test_own_numbers_are_those_of_a_frame_of_a_patch_alone() -> None:
    """The same pixels say the same wherever and whenever they are shown, and no others change that."""
    own = Own(5)
    video = torch.randint(0, 256, (2, 3, 2, 3, 48, 48), dtype=torch.uint8)
    patch = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    video[0, 1, 0, :, 16:32, 32:48] = patch
    video[1, 2, 1, :, 32:48, :16] = patch
    said = own(video).unflatten(1, (3, 3, 3)).unflatten(-1, (2, 5))  # batch, steps, rows, columns, frames, numbers
    torch.testing.assert_close(said[0, 1, 1, 2, 0], said[1, 2, 2, 0, 1])
    other = video.clone()
    other[0, 1, 0, :, 16:32, 32:48] = 255 - patch
    changed = (own(other).view_as(said) - said).abs().amax(-1) > 1e-4
    assert changed.nonzero().tolist() == [[0, 1, 1, 2, 0]]
    torch.testing.assert_close(own(other).view_as(said)[0, 1, 1, 2, 0], -said[0, 1, 1, 2, 0])  # about the middle grey


@torch.no_grad()
def test_own_numbers_are_held_from_the_nearest_moment_of_the_same_place() -> None:
    frames, numbers, tokens = 2, 3, 4
    predictor = MaskedPredictor(side=2, tokens_width=8 + 6, width=8, depth=1, heads=2, own=6, frames=frames)
    shown = torch.randn(2, SLOTS * tokens, 8 + frames * numbers)
    slots = torch.tensor([[0, 2], [1, 3]])  # seen; of the second row slot 0 lies before all that is seen
    kept = (slots[..., None] * tokens + torch.arange(tokens)).flatten(1)[:, :-1]  # the last one's last place is hidden
    asked = torch.tensor([[4, 7, 13], [0, 3, 11]])  # slot 1 (tie), its last place, slot 3; slot 0 twice, slot 2 (tie)
    context = shown.gather(1, kept[..., None].expand(-1, -1, shown.shape[-1]))
    said = predictor(context, kept, asked, slots=SLOTS)[..., 8:].unflatten(-1, (frames, numbers))
    first, last = (shown[..., 8:].unflatten(-1, (frames, numbers))[:, :, frame] for frame in (0, 1))
    wanted = torch.stack(
        [
            torch.stack([last[0, 0], last[0, 3], last[0, 9]]),
            torch.stack([first[1, 4], first[1, 7], last[1, 7]]),
        ]
    )
    torch.testing.assert_close(said, wanted[:, :, None].expand_as(said))
    nowhere = predictor(context[:, :1], kept[:, :1], torch.tensor([[5], [6]]), slots=SLOTS)[..., 8:]
    assert not nowhere.any()
