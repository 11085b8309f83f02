"""Other memories beside one of places: what each can hold, that it is learned, and that all are asked the same."""

import numpy as np
import pytest
import torch
from tests.test_places import model
from tests.test_recall import walked

from ami.evaluation import cells
from ami.evaluation.benchmark import Asking
from ami.evaluation.cells import CELLS, Attention, Teaching, taught
from ami.evaluation.suites import SUITES
from ami.evaluation.suites.cells import Beside, Cells
from ami.evaluation.walking import TWINS, views

SHAPE = (2, 4)
TEACHING = Teaching(steps=100, batch=16, views=4, width=16, rate=1e-2, warmup=5)


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products are slow in 16 bits."""
    monkeypatch.setattr(cells, "fast_precision", lambda: "fp32")


def poses(walks: int, steps: int) -> torch.Tensor:
    return torch.randn(walks, steps, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([2.0, 2.0, 3.0])


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", CELLS)
@torch.no_grad()
def test_what_is_held_is_a_value_that_goes_on_at_any_age(kind: str) -> None:
    cell, seen, at = CELLS[kind](SHAPE, 8), drawn(3, 30), poses(3, 30)
    whole = cell.keep(None, seen, at)
    half = cell.keep(None, seen[:, :10], at[:, :10])
    torch.testing.assert_close(cell.keep(half, seen[:, 10:], at[:, 10:]), whole)
    assert (whole.numel() > half.numel()) == (kind == "attention")
    torch.testing.assert_close(cell.keep(None, seen[1:2], at[1:2]), whole[1:2])


@pytest.mark.parametrize("kind", CELLS)
def test_each_learns_what_stays_the_same_through_a_walk(kind: str) -> None:
    which = torch.randint(4, (80,), generator=torch.Generator().manual_seed(2))
    facts, steps = drawn(4)[which][:, None].repeat(1, 12, 1, 1), poses(80, 12)
    cell = taught(kind, facts[:64], steps[:64], TEACHING, torch.Generator().manual_seed(0))
    with torch.no_grad():
        told, _ = cell.tell(cell.keep(None, facts[64:, :6], steps[64:, :6]), steps[64:, 6:])
    assert (told - facts[64:, 6:]).square().mean() < 0.4 * facts[64:].square().mean()


def test_attention_finds_what_was_seen_from_a_pose_among_all_the_rest() -> None:
    seen, at = drawn(80, 12), poses(80, 12)
    cell = taught("attention", seen[:64], at[:64], TEACHING, torch.Generator().manual_seed(0))
    with torch.no_grad():
        held = cell.keep(None, seen[64:], at[64:])
        told, doubt = cell.tell(held, at[64:])
        answers = torch.stack([seen[64:], -seen[64:]], 2)
        misfit = cell.misfits(held, at[64:], answers)
    assert (told - seen[64:]).square().mean() < 0.5 * seen[64:].square().mean()
    assert (misfit[..., 0] < misfit[..., 1]).float().mean() > 0.95
    by_hand = ((answers - told[:, :, None]).square().mean(-1) / (doubt.exp() + 0.05)[:, :, None]).mean(-1)
    torch.testing.assert_close(misfit, by_hand)


def test_the_same_seed_teaches_the_same() -> None:
    quick = Teaching(steps=3, batch=4, views=2, width=8)
    one, again = (
        taught("GRU", drawn(8, 12), poses(8, 12), quick, torch.Generator().manual_seed(3)).state_dict() for _ in "12"
    )
    assert all(torch.equal(one[name], again[name]) for name in one)


@torch.no_grad()
def test_cells_are_told_the_true_pose_and_asked_what_the_model_is() -> None:
    lived = walked(6)
    torch.manual_seed(0)
    cell = Attention((16, 32), 8)
    beside = Beside(lived.model, lived.mazes, lived.poses, lived.actions, cells={"attention": cell})
    for _ in range(7):
        beside.step()
    true = beside.from_start(np.arange(3), lived.poses)
    torch.testing.assert_close(beside.held["attention"], cell.keep(None, beside.tokens, true))
    rows, at = np.array([0, 2]), lived.poses[[0, 2], 3:5]
    answers = [views(lived.mazes.rows(rows), at), views(lived.mazes.rows(rows[::-1]), at)]
    found, alone = beside.misfits(rows, at, answers), lived.misfits(rows, at, answers)
    assert set(found) == {*alone, "attention"}
    assert np.array_equal(found["model"], alone["model"])
    assert found["attention"].shape == found["model"].shape


def test_a_row_says_what_each_recalls() -> None:
    assert "cells" in SUITES
    quick = Cells((3, 8), 20, lessons=4, clip=12, teaching=Teaching(steps=2, batch=2, views=2, width=8))
    answers = quick.run(model(), 3, Asking(7)).results
    assert [each.benchmark for each in answers] == ["recall/cells/age-3", "recall/cells/age-8"]
    assert set(answers[0].baselines) == {*TWINS, *CELLS, "chance"}
