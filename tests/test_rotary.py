"""Rotary positions: lengths stay, and what two tokens say to each other depends on the way between them alone."""

import pytest
import torch

from ami.nn.rotary import grid, turns


def pair(dim: int = 24, seed: int = 0) -> torch.Tensor:
    """One query and one key for each of two heads."""
    return torch.randn(1, 1, 2, 2, dim, generator=torch.Generator().manual_seed(seed))


def turned(values: torch.Tensor, place: tuple[float, float, float], tiled: bool = False) -> torch.Tensor:
    dim = values.shape[-1]
    return turns(torch.tensor([place], dtype=torch.float32), dim, tiled=tiled).apply(values)


def score(one: tuple[float, float, float], other: tuple[float, float, float], tiled: bool = False) -> torch.Tensor:
    """What a query at one place and a key at another come to."""
    return (turned(pair(), one, tiled)[..., 0, :, :] * turned(pair(), other, tiled)[..., 1, :, :]).sum(-1)


FAR = [((1, 2, 3), (4, 0, 1)), ((0, 0, 0), (7, 7, 7)), ((5, 1, 0), (2, 9, 3))]


def moved(place: tuple[int, int, int], by: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(a + b for a, b in zip(place, by, strict=True))


@pytest.mark.parametrize(("one", "other"), FAR)
def test_a_turn_keeps_lengths_and_scores_depend_on_differences(one, other) -> None:
    values = pair()
    torch.testing.assert_close(turned(values, one).norm(dim=-1), values.norm(dim=-1))
    for by in ((3, 0, 0), (0, 11, 0), (0, 0, 2), (4, 5, 6)):
        torch.testing.assert_close(score(moved(one, by), moved(other, by)), score(one, other), atol=1e-4, rtol=1e-4)
    # And on each axis of the difference.
    for by in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert (score(one, moved(other, by)) - score(one, other)).abs().max() > 1e-2


def test_the_tiled_variant_does_neither() -> None:
    values, (one, other) = pair(), FAR[0]
    assert (turned(values, other, tiled=True).norm(dim=-1) - values.norm(dim=-1)).abs().max() > 1e-2
    shift = score(moved(one, (4, 5, 6)), moved(other, (4, 5, 6)), tiled=True) - score(one, other, tiled=True)
    assert shift.abs().max() > 1e-2


def test_a_turn_is_that_of_the_paper() -> None:
    # RoFormer, equation 15, for one axis after the other: dimensions 2 × (4 planes of time, 4 of rows, 4 of columns).
    place, values = (3.0, 5.0, 2.0), pair()
    angle = torch.tensor([at * 10_000 ** (-i / 4) for at in place for i in range(4)])
    complex_plane = torch.complex(values[..., :12], values[..., 12:]) * torch.polar(torch.ones(12), angle)
    torch.testing.assert_close(
        turned(values, place), torch.cat([complex_plane.real, complex_plane.imag], -1), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("dim", [2, 16, 20, 32, 64])
def test_what_three_axes_leave_over_does_not_turn(dim: int) -> None:
    values, planes = pair(dim), 3 * (dim // 6)
    changed = (turned(values, (5, 6, 7)) - values).abs().amax((0, 1, 2, 3)) > 1e-4
    assert not changed[planes : dim // 2].any()
    assert not changed[dim // 2 + planes :].any()


def test_with_gradients_and_without_it_is_the_same() -> None:
    values, where = torch.randn(2, 8, 2, 3, 24), turns(grid(2, 2, 2), 24)
    with torch.no_grad():
        plain = where.apply(values)
    torch.testing.assert_close(where.apply(values), plain)
    order = torch.tensor([[3, 1], [0, 7]])
    kept = values.gather(1, order[..., None, None, None].expand(-1, -1, 2, 3, 24))
    chosen = plain.gather(1, order[..., None, None, None].expand(-1, -1, 2, 3, 24))
    torch.testing.assert_close(where[order].apply(kept), chosen)


def test_a_grid_goes_slot_by_slot_and_row_by_row() -> None:
    assert grid(2, 2, 3)[[0, 1, 3, 6, 11]].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 2]]


def test_a_head_has_planes() -> None:
    with pytest.raises(ValueError, match="a head of 7 dimensions has no planes to turn; it must be even"):
        turns(grid(1, 1, 1), 7)
