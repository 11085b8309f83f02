"""The networks compute what they say: convolutions without overlap, attention, normalisation by embodiment."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ami.nn import tokenizers
from ami.nn.encoders import ProprioDoor, StepEncoder
from ami.nn.norm import EmbodimentNorm
from ami.nn.predictors import ActionDoor, ResidualPredictor
from ami.nn.tokenizers import PatchStem
from ami.nn.transformer import Block, attend
from ami.types import Embodiment

BODIES = {"a": Embodiment("a", 0.1)}


def _video(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _convolved(stem: PatchStem, video: torch.Tensor) -> torch.Tensor:
    """The same weights in three convolutions of kernel and stride 4, 2 and 2."""
    frames, tubelet, _, height, width = video.shape
    hidden = (video.view(frames, tubelet * 3, height, width).float() - 127.5) / 64
    first = stem.piece.weight.view(-1, tubelet, 4, 4, 3).permute(0, 1, 4, 2, 3).flatten(1, 2)
    hidden = functional.conv2d(hidden, first, stem.piece.bias, stride=4).relu()
    for layer in (stem.quarter, stem.token):
        kernel = layer.weight.view(layer.out_features, 2, 2, -1).permute(0, 3, 1, 2)
        hidden = functional.conv2d(hidden, kernel, layer.bias, stride=2).relu()
    return hidden.flatten(2).mT


@pytest.mark.parametrize(("tubelet", "height", "width"), [(1, 64, 64), (2, 32, 48), (1, 16, 16)])
def test_the_stem_is_three_convolutions_without_overlap(tubelet: int, height: int, width: int) -> None:
    stem = PatchStem((5, 6, 7), tubelet)
    video = _video(9, tubelet, 3, height, width)
    wanted = _convolved(stem, video)
    assert wanted.shape == (9, height * width // 256, 7)
    torch.testing.assert_close(stem(video), wanted, rtol=0, atol=1e-5)
    # As a store hands pictures out: colour last in memory.
    stored = video.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert torch.equal(stem(stored), stem(video))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stem, video = PatchStem((5, 6, 7)), _video(11, 1, 3, 32, 32)
    whole = stem(video)
    whole.square().sum().backward()
    gradients = [p.grad.clone() for p in stem.parameters()]
    stem.zero_grad()
    monkeypatch.setattr(tokenizers, "_CHUNK", 4)
    parts = stem(video)
    parts.square().sum().backward()
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)
    for parameter, gradient in zip(stem.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-4)


def test_pictures_of_other_sizes_are_refused() -> None:
    stem = PatchStem((4, 4, 4), tubelet=2)
    with pytest.raises(ValueError, match="pictures are 64 x 60 px; this model needs multiples of 16"):
        stem(_video(1, 2, 3, 64, 60))
    with pytest.raises(ValueError, match="the clip has 1 frames a step; this model was built for 2"):
        stem(_video(1, 1, 3, 64, 64))
    encoder = StepEncoder(picture=32, tubelet=1, widths=(4, 4, 4), blocks=0, out=3, embodiments=BODIES)
    with pytest.raises(ValueError, match="pictures are 64 x 64 px; this model was built for 32 x 32"):
        encoder(_video(1, 1, 3, 64, 64), None, "a")


@pytest.mark.parametrize("blocks", [0, 2])
def test_an_encoder_knows_where_a_thing_is(blocks: int) -> None:
    """One bright square at two places of the same phase: a mean over tokens could not tell them apart."""
    torch.manual_seed(0)
    encoder = StepEncoder(picture=64, tubelet=1, widths=(4, 8, 64), blocks=blocks, out=3, embodiments=BODIES).eval()
    video = torch.zeros(2, 1, 3, 64, 64, dtype=torch.uint8)
    video[0, :, :, 4:8, 4:8] = video[1, :, :, 36:40, 20:24] = 255
    first, second = encoder(video, None, "a")
    assert (first - second).abs().max() > 1e-3


def test_what_a_body_feels_is_normalised_and_joins_the_picture() -> None:
    torch.manual_seed(0)
    body = Embodiment("a", 0.1, proprio_mean=(5.0, -1.0), proprio_std=(2.0, 0.5))
    encoder = StepEncoder(picture=16, tubelet=1, widths=(4, 4, 4), blocks=0, out=3, embodiments={"a": body}).eval()
    video = _video(1, 1, 3, 16, 16).expand(3, -1, -1, -1, -1)
    felt = torch.tensor([[5.0, -1.0], [7.0, -1.0], [5.0, -1.5]])
    still, first, second = encoder(video, felt, "a")
    weight = encoder.felt["a"].project.weight
    torch.testing.assert_close(torch.stack([first - still, second - still]), weight.T * torch.tensor([[1.0], [-1.0]]))
    for came, said in ((None, "none came"), (felt[:, :1], "1 came")):
        with pytest.raises(ValueError, match=f"trained with 2 numbers of proprioception; {said}"):
            encoder(video, came, "a")
    assert ProprioDoor((), (), 3)(None) == 0.0


def test_a_block_is_the_standard_pre_norm_one() -> None:
    torch.manual_seed(0)
    ours = Block(32, heads=4).eval()
    reference = nn.TransformerEncoderLayer(32, 4, 128, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    reference.load_state_dict(
        {
            "self_attn.in_proj_weight": ours.query_key_value.weight,
            "self_attn.in_proj_bias": ours.query_key_value.bias,
            **{f"self_attn.out_proj.{name}": value for name, value in ours.attended.state_dict().items()},
            **{f"norm1.{name}": value for name, value in ours.before_attention.state_dict().items()},
            **{f"norm2.{name}": value for name, value in ours.before_network.state_dict().items()},
            **{f"linear1.{name}": value for name, value in ours.widen.state_dict().items()},
            **{f"linear2.{name}": value for name, value in ours.narrow.state_dict().items()},
        }
    )
    tokens = torch.randn(3, 5, 32)
    torch.testing.assert_close(ours(tokens), reference(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_short_rows_in_bfloat16_attend_as_long_ones_do(masked: bool) -> None:
    torch.manual_seed(0)
    exact = torch.randn(3, 2, 4, 60, 32, requires_grad=True)
    hears = torch.rand(2, 1, 60, 60) > 0.4 if masked else None
    heard = attend(*exact, hears)
    torch.testing.assert_close(heard, functional.scaled_dot_product_attention(*exact, hears))
    rounded = exact.detach().bfloat16().requires_grad_()
    short = attend(*rounded, hears)
    assert short.dtype == torch.bfloat16
    torch.testing.assert_close(short.float(), heard, rtol=0, atol=0.04)
    (of_exact,) = torch.autograd.grad(heard.sin().sum(), exact)
    (of_short,) = torch.autograd.grad(short.float().sin().sum(), rounded)
    torch.testing.assert_close(of_short.float(), of_exact, rtol=0, atol=0.06)


def test_what_is_normalised_has_no_mean_and_unit_variance() -> None:
    norm = EmbodimentNorm(("film", "robot"), 3)
    values = 5.0 + 2.0 * torch.randn(400, 3)
    normal = norm(values, "robot")
    torch.testing.assert_close(normal.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(normal.var(0, correction=0), torch.ones(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(norm.eval()(values, "robot"), normal, rtol=0, atol=1e-5)  # the first batch counts fully
    assert torch.equal(norm.mean[0], torch.zeros(3)), "one embodiment's statistics are another's"
    torch.testing.assert_close(norm(values, "film"), values, rtol=1e-4, atol=0)
    torch.testing.assert_close(norm(values[:1], "robot")[0], normal[0], rtol=0, atol=1e-5)  # alone as among others


def test_running_statistics_become_those_of_the_data() -> None:
    norm, generator = EmbodimentNorm(("a",), 2), torch.Generator().manual_seed(0)
    for _ in range(5):
        norm(30.0 + 9.0 * torch.randn(64, 2, generator=generator), "a")  # an encoder that has hardly begun
    for _ in range(55):
        norm(3.0 + 0.5 * torch.randn(64, 2, generator=generator), "a")
    torch.testing.assert_close(norm.mean[0], torch.full((2,), 3.0), rtol=0, atol=0.4)
    torch.testing.assert_close(norm.var[0], torch.full((2,), 0.25), rtol=0, atol=1.0)


def test_a_door_normalises_actions_and_orders_them_by_step() -> None:
    torch.manual_seed(0)
    door = ActionDoor((1.0, -2.0), (0.5, 4.0), width=6)
    nn.init.normal_(door.kind)
    actions = torch.tensor([1.0, -2.0]).repeat(3, 4, 1)
    actions[2, 1, 1] += 4.0  # one deviation of the second number, in row 2 at step 1
    context = torch.randn(3, 6)
    moved = torch.stack([door(done, context) for done in actions.unbind(1)]) - door.kind - context
    torch.testing.assert_close(moved[1, 2], door.weight[:, 1])
    moved[1, 2] = 0.0
    assert moved.abs().max() < 1e-6
    passive = ActionDoor((), (), width=6)
    assert torch.equal(passive(None, context), context + passive.kind)


def test_an_untrained_predictor_expects_that_nothing_changes() -> None:
    predictor = ResidualPredictor(history=6, context=2, width=8, depth=2, state=3)
    assert torch.equal(predictor(torch.randn(5, 6), torch.randn(5, 8)), torch.zeros(5, 3))
    nn.init.normal_(predictor.change.weight)
    assert predictor(torch.randn(5, 6), torch.randn(5, 8)).abs().min() > 0
