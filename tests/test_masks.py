"""Masks hide exactly what they say, in every row as much as in the next, and never what they show."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ami.objectives.masks import LONG_RANGE, SHORT_RANGE, Blocks, Grid, Mask, Slots, covers


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def check_parts(mask: Mask, grid: Grid) -> None:
    """Each row: ascending numbers, none twice, none in both, all inside the clip."""
    for part in (mask.visible, mask.hidden):
        assert part.shape[1] > 0
        assert (part.diff(dim=1) > 0).all()
        assert part.min() >= 0
        assert part.max() < grid.slots * grid.tokens
    visible, hidden = covers(mask, grid)
    assert not (visible & hidden).any()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    slots=st.integers(1, 8),
    rows=st.integers(4, 16),
    columns=st.integers(4, 16),
    count=st.integers(1, 4),
    share=st.floats(0.02, 0.1),
)
def test_blocks_hide_tubes_and_show_only_what_no_block_covers(
    seed: int, slots: int, rows: int, columns: int, count: int, share: float
) -> None:
    grid, blocks = Grid(slots, rows, columns), Blocks(count, share)
    mask = blocks.draw(5, grid, drawn(seed))
    check_parts(mask, grid)
    for part in covers(mask, grid):
        assert (part == part[:, :1]).all()  # the same places in every slot


def test_one_block_is_a_rectangle_of_the_size_it_says() -> None:
    grid = Grid(2, 12, 12)
    for seed in range(20):
        hidden = covers(Blocks(1, 0.25, (0.75, 1.5)).draw(6, grid, drawn(seed)), grid)[1][:, 0]
        for picture in hidden:
            tall, wide = picture.any(1), picture.any(0)
            assert picture.sum() == tall.sum() * wide.sum()  # no hole and no notch
            assert 0.2 <= float(picture.float().mean()) <= 0.3
            assert 0.6 <= float(tall.sum() / wide.sum()) <= 1.75
            assert (tall.int().diff().abs().sum() <= 2) & (wide.int().diff().abs().sum() <= 2)


def test_places_are_uniform_and_differ_between_rows() -> None:
    grid = Grid(1, 6, 6)
    hidden = covers(Blocks(1, 0.25, (1.0, 1.0)).draw(4000, grid, drawn(0)), grid)[1][:, 0]
    corner, middle = float(hidden[:, 0, 0].float().mean()), float(hidden[:, 2, 2].float().mean())
    assert corner == pytest.approx(1 / 16, abs=0.02)  # one of the 4 x 4 places of a 3 x 3 block
    assert middle == pytest.approx(9 / 16, abs=0.03)


def test_the_masks_of_the_paper_hide_most_of_a_clip() -> None:
    """Bardes et al. 2024, section 3.2: both kinds hide about nine tenths of the tokens."""
    grid = Grid(8, 14, 14)
    for blocks, low, high in ((SHORT_RANGE, 0.5, 0.9), (LONG_RANGE, 0.7, 0.97)):
        ratios = [blocks.draw(8, grid, drawn(seed)).ratio for seed in range(20)]
        assert low < sum(ratios) / len(ratios) < high


@pytest.mark.parametrize("side", [4, 8, 14])
def test_two_blocks_that_can_cover_everything_leave_something_to_see_in_every_row(side: int) -> None:
    """A row is placed anew, by itself: long-range masks of 0.7 hid all of some row in a third of the batches."""
    grid = Grid(2, side, side)
    for seed in range(40):
        for masking in (SHORT_RANGE, LONG_RANGE):
            check_parts(masking.draw(32, grid, drawn(seed)), grid)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), slots=st.integers(2, 9), side=st.integers(1, 5), ends=st.floats(0.0, 0.5))
def test_slots_are_hidden_whole_and_every_token_is_used(seed: int, slots: int, side: int, ends: float) -> None:
    grid = Grid(slots, side, side + 1)
    for hidden in range(1, slots):
        mask = Slots(hidden, ends).draw(7, grid, drawn(seed))
        check_parts(mask, grid)
        seen, masked = covers(mask, grid)
        assert (seen | masked).all()
        whole = masked.flatten(2)
        assert (whole.all(2) == whole.any(2)).all()
        assert (whole.all(2).sum(1) == hidden).all()


def test_the_ends_of_a_clip_are_hidden_as_often_as_was_asked() -> None:
    grid = Grid(8, 2, 2)
    hidden = covers(Slots(4, 0.3).draw(4000, grid, drawn(1)), grid)[1].flatten(2).all(2)
    first, last = hidden[:, :4].all(1).float().mean(), hidden[:, 4:].all(1).float().mean()
    assert float(first) == pytest.approx(0.3 + 0.4 / 70, abs=0.03)
    assert float(last) == pytest.approx(0.3 + 0.4 / 70, abs=0.03)


def test_the_same_generator_draws_the_same_masks() -> None:
    for masking, grid in ((SHORT_RANGE, Grid(2, 8, 8)), (Slots(2), Grid(4, 4, 4))):
        one, same, other = (masking.draw(9, grid, drawn(seed)) for seed in (3, 3, 4))
        assert torch.equal(one.hidden, same.hidden)
        assert not torch.equal(one.visible, other.visible)


def test_what_would_hide_everything_or_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="leave nothing to see"):
        Blocks(8, 0.9).draw(2, Grid(4, 4, 4), drawn(0))
    for hidden in (0, 4):
        with pytest.raises(ValueError, match=f"{hidden} of 4 slots cannot be hidden"):
            Slots(hidden).draw(2, Grid(4, 4, 4), drawn(0))
