"""Points are where the maps say, and each penalty falls on what moves by itself and rises on what does not."""

import pytest
import torch
from torch import Tensor

from ami.models.vjepa import VJEPAConfig
from ami.nn.points import Found, Points
from ami.objectives.points import Pointing, PointSettings, crookedness, stillness, togetherness, unnoticed


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def straight(films: int = 64, slots: int = 8, points: int = 3) -> Tensor:
    """Points that go straight on, each its own way."""
    start, velocity = torch.randn(2, films, 1, points, 2, generator=drawn()) * 0.3
    return start + velocity * torch.arange(slots)[:, None, None]


def blank(tubelet: int, count: int) -> Points:
    """A finder that knows nothing at all."""
    finder = Points(picture=64, tubelet=tubelet, count=count, width=4)
    for parameter in finder.parameters():
        torch.nn.init.zeros_(parameter)
    return finder


def of_free(points: Tensor) -> tuple[Found, Tensor]:
    """Points that are found in films of which nothing is known."""
    films, slots, count, _ = points.shape
    moves = torch.zeros(films, slots, count // 3, 16, 16)
    return Found(points, points, moves), torch.zeros(films, slots, 1, 3, 64, 64, dtype=torch.uint8)


def test_a_point_is_where_its_map_is_bright() -> None:
    """A network that answers to brightness finds a white square on black, wherever it is."""
    finder = blank(tubelet=2, count=1)
    torch.nn.init.constant_(finder.look.weight, 1.0)
    torch.nn.init.constant_(finder.maps.weight, 1.0)
    for x, y in ((8, 8), (40, 20), (52, 60)):
        video = torch.zeros(1, 2, 3, 64, 64, dtype=torch.uint8)
        video[..., y - 4 : y + 4, x - 4 : x + 4] = 255
        assert finder(video).free.flatten().tolist() == pytest.approx([x / 32 - 1, y / 32 - 1], abs=1e-4)


def test_contrast_tells_what_is_flat_and_what_changes() -> None:
    """A network that answers to the lack of contrast finds a grey square before grey noise; or else what flickers."""
    finder = blank(tubelet=2, count=1)
    torch.nn.init.constant_(finder.maps.weight, 1.0)
    torch.nn.init.constant_(finder.look.bias, 20.0)
    noise = torch.randint(98, 159, (1, 1, 3, 64, 64), generator=drawn(), dtype=torch.uint8)
    flat, flickers = noise.repeat(1, 2, 1, 1, 1), noise.repeat(1, 2, 1, 1, 1)
    flat[..., 16:28, 36:48] = 128
    flickers[:, 1, :, 16:28, 36:48] = flickers[:, 0, :, 20:32, 36:48]
    for video, columns, sign in ((flat, slice(-6, -3), -1.0), (flickers, slice(-3, None), 1.0)):
        torch.nn.init.zeros_(finder.look.weight)
        torch.nn.init.constant_(finder.look.weight[..., columns], sign)
        assert finder(video).free.flatten().tolist() == pytest.approx([42 / 32 - 1, 22 / 32 - 1], abs=0.05)


def test_points_are_bound_to_what_moves_and_say_nothing_of_anything_else() -> None:
    """A network that takes what is very bright for what moves; one point looks at what is bright, one at all of it."""
    finder = blank(tubelet=1, count=2)
    torch.nn.init.constant_(finder.look.weight, 0.1)
    torch.nn.init.constant_(finder.moves.weight, 1.0)
    torch.nn.init.constant_(finder.moves.bias, -20.0)
    finder.maps.weight.data[:, 0] = 1.0
    video = torch.zeros(1, 1, 3, 64, 64, dtype=torch.uint8)
    video[..., 8:16, 40:52] = 255
    video[..., 40:48, 40:52] = 160  # bright enough to be looked at, not to move
    places, free, moves = finder(video)
    bright = torch.zeros(16, 16, dtype=torch.bool)
    bright[2:4, 10:13] = True
    assert torch.equal(moves[0, 0] > 0, bright)
    assert places[0, 0].tolist() == pytest.approx([46 / 32 - 1, 12 / 32 - 1], abs=0.01)
    assert places[0, 1].tolist() == pytest.approx([0.0, 0.0], abs=0.02)  # little of the picture moves
    assert free[0, 1].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_noticing_asks_only_where_a_film_tells() -> None:
    """A square that crosses a still texture is labelled in every slot; a film that pans says nothing of itself."""
    texture = torch.randint(60, 196, (1, 1, 3, 8, 12), generator=drawn(2), dtype=torch.uint8)
    texture = texture.repeat_interleave(8, -2).repeat_interleave(8, -1)
    still = texture[..., :64].repeat(1, 8, 1, 1, 1)
    for step in range(8):
        still[0, step, :, 24:32, 8 * step : 8 * step + 8] = torch.tensor([250, 10, 10], dtype=torch.uint8)[
            :, None, None
        ]
    pans = torch.stack([texture[0, 0, ..., 4 * step : 4 * step + 64] for step in range(8)])[None]
    right = torch.full((1, 8, 1, 16, 16), -20.0)
    for step in range(8):
        right[0, step, 0, 6:8, 2 * step : 2 * step + 2] = 20.0
    losses = [float(unnoticed(said, film[:, :, None])) for film in (still, pans) for said in (right, -right)]
    assert losses[0] < 1e-6
    assert losses[1] == pytest.approx(20.0, rel=1e-3)
    assert losses[2:] == [0.0, 0.0]


def test_finders_share_nothing_and_a_picture_hears_no_other() -> None:
    finder = Points(picture=64, tubelet=2, count=2, finders=3, width=8)
    video = torch.randint(0, 256, (33, 2, 3, 64, 64), generator=drawn(), dtype=torch.uint8)
    found = finder(video).free
    assert found.shape == (33, 6, 2)
    torch.testing.assert_close(finder(video[30:31]).free, found[30:31])
    found[:, 2:4].square().sum().backward()
    for name in ("whole", "think", "again", "maps"):
        taught = finder.get_parameter(f"{name}.weight").grad
        assert taught is not None
        assert (taught.abs().sum((1, 2)) > 0).tolist() == [False, True, False], name
    taught = finder.look.weight.grad
    assert taught is not None
    assert (taught.view(3, -1).abs().sum(1) > 0).tolist() == [False, True, False]


def test_finders_may_find_the_same() -> None:
    """What goes together is penalised within a finder alone."""

    def losses(finders: int) -> dict[str, Tensor]:
        config = VJEPAConfig(embodiments={}, points=3, finders=finders)
        return Pointing(config, PointSettings()).losses(*of_free(straight().repeat(1, 1, finders, 1)))

    one, two = losses(1), losses(2)
    for name, loss in one.items():
        torch.testing.assert_close(two[name], loss)
    assert float(togetherness(straight().repeat(1, 1, 2, 1))) > 0.5


def test_the_fear_of_standing_fades() -> None:
    config = VJEPAConfig(embodiments={}, points=3, finders=1)
    fading, staying = (Pointing(config, PointSettings(fades=fades)) for fades in (100, 0))
    found = of_free(torch.zeros(4, 8, 3, 2))
    for step, share in ((0, 1.0), (50, 0.55), (100, 0.1), (500, 0.1)):
        held, faded = staying.losses(*found, step), fading.losses(*found, step)
        torch.testing.assert_close(faded["still"], share * held["still"])
        assert faded["crooked"] == held["crooked"]


def test_who_finds_movers_is_told_what_moves_later() -> None:
    config = VJEPAConfig(embodiments={}, points=3, finders=1)
    film = torch.full((4, 8, 1, 3, 64, 64), 90, dtype=torch.uint8)
    film[:, :, :, :, :8] = torch.arange(60, 220, 20, dtype=torch.uint8)[None, :, None, None, None, None]
    found, pointing = of_free(torch.zeros(4, 8, 3, 2))[0], Pointing(config, PointSettings(fades=100, found=0.5))
    early, half, late = (float(pointing.losses(found, film, step)["moves"]) for step in (50, 55, 60))
    assert early == 0 < half == pytest.approx(late / 2)


def test_who_goes_straight_is_not_crooked() -> None:
    noise = torch.randn(64, 8, 3, 2, generator=drawn(1))
    assert float(crookedness(straight())) < 1e-6
    assert float(crookedness(noise)) == pytest.approx(1.5 / (7 / 8), rel=0.1)  # a bend's variance over a film's
    assert float(crookedness(straight())) < float(crookedness(straight() + 0.05 * noise))


def test_crookedness_does_not_ask_how_fast() -> None:
    wavy = straight() + 0.2 * torch.randn(64, 8, 3, 2, generator=drawn(1))
    assert float(crookedness(wavy)) == pytest.approx(float(crookedness(3 * wavy)), rel=0.05)


def test_who_stands_is_still_and_who_moves_enough_is_not() -> None:
    assert float(stillness(torch.zeros(4, 8, 3, 2))) == pytest.approx(1.0, abs=0.01)
    swinging = torch.tensor([-0.3, 0.3]).repeat(4)[None, :, None, None].expand(4, 8, 3, 2)
    assert float(stillness(swinging)) == 0.0
    assert 0.0 < float(stillness(swinging * 0.5)) < 1.0


def test_who_goes_together_is_told_apart() -> None:
    alone, points = straight(512), straight(512)
    together = points[:, :, :1].expand_as(points) + 3.0 * torch.arange(3)[:, None]  # same way, other places
    assert float(togetherness(alone)) < 0.05
    assert float(togetherness(together)) == pytest.approx(2.0, rel=0.05)


def test_learning_finds_a_mover_over_a_texture() -> None:
    """A red square over grey noise: a hundred steps without a label, and a point follows it."""
    films, slots = 48, 6
    texture = torch.randint(60, 196, (films, 1, 1, 1, 64, 64), generator=drawn(2)).expand(-1, slots, 1, 3, -1, -1)
    video = texture.contiguous().to(torch.uint8)
    start, turn = 20 + 24 * torch.rand(films, 2, generator=drawn(3)), torch.rand(films, generator=drawn(4)) * 6.28
    path = start[:, None] + 3 * torch.arange(slots)[:, None] * torch.stack([turn.cos(), turn.sin()], -1)[:, None]
    for film in range(films):
        for slot in range(slots):
            x, y = path[film, slot].int().tolist()
            video[film, slot, 0, :, y - 4 : y + 4, x - 4 : x + 4] = torch.tensor([230, 40, 40])[:, None, None]
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        finder = Points(picture=64, tubelet=1, count=2)

    def find(films: Tensor) -> Tensor:
        return finder(films.flatten(0, 1)).along(len(films)).free

    adam = torch.optim.Adam(finder.parameters(), 1e-2)
    for _ in range(100):
        found = find(video[:32])
        loss = crookedness(found) + 2 * stillness(found, 0.15) + togetherness(found)
        adam.zero_grad()
        loss.backward()
        adam.step()
    found, way = find(video[32:]).detach(), path[32:] / 32 - 1
    gone, went = found - found.mean(1, keepdim=True), way - way.mean(1, keepdim=True)
    shared = [float(torch.corrcoef(torch.stack([gone[:, :, i].flatten(), went.flatten()]))[0, 1]) for i in (0, 1)]
    assert max(shared) > 0.9
