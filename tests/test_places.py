"""A JEPA of places: what is kept where it is stays there, poses are found again, and beliefs are values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ami.models import contract
from ami.models.places import PlacesJEPA, sized
from ami.nn.places import PlaceMemory, Stride, Viewer, Writer, between, moved, outlook
from ami.objectives.revisits import Revisits, columns, planar, shades
from ami.types import Belief, Clip, Latent
from ami.worlds import maze_walks
from ami.worlds.maze import EMBODIMENT, NAME
from tiny_stores import maze_store

BODY = replace(EMBODIMENT, action_mean=(0.5, 0.0), action_std=(0.4, 0.5))


def model() -> PlacesJEPA:
    """Untrained, but one whose actions lead somewhere."""
    torch.manual_seed(0)
    made = PlacesJEPA(sized({NAME: BODY}))
    with torch.no_grad():
        made.strides[NAME].out.weight.normal_(0, 0.02)
    return made.eval()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    store = maze_store(tmp_path_factory.mktemp("maze") / "s", 3, 24)
    return store.clips(np.array([[0, 0], [1, 0], [2, 0]]), 24)


def test_it_keeps_the_contract(clip: Clip) -> None:
    contract.check(model(), clip.between(0, 8))


@settings(deadline=None)
@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-3, 3), st.floats(-1, 1), st.floats(-1, 1), st.floats(-3, 3))
def test_a_step_between_two_poses_leads_from_one_to_the_other(
    x: float, y: float, heading: float, ahead: float, left: float, turn: float
) -> None:
    pose, step = torch.tensor([[x, y, heading]]), torch.tensor([[ahead, left, turn]])
    torch.testing.assert_close(between(pose, moved(pose, step)), step, atol=1e-4, rtol=1e-4)


def seen_at(memory: PlaceMemory, places: torch.Tensor, at: torch.Tensor, value: list[float], toward: float = 0.0):
    """``value`` seen to be shut at a point, looking ``toward`` it."""
    weights, values = torch.ones(at.shape[:2]), torch.tensor([[value]])
    return memory.write(places, at, weights, values, torch.full(at.shape[:2], toward))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_what_is_kept_at_a_place_is_read_there_and_not_elsewhere(seed: int) -> None:
    memory, draw = PlaceMemory(side=16, spacing=0.25, value=2, most=1e3), torch.Generator().manual_seed(seed)
    at, toward = 4 * torch.rand(1, 1, 2, generator=draw), torch.rand(1, 1, generator=draw)
    value = torch.randn(1, 1, 2, generator=draw)
    places = memory.write(memory.empty(1, at), at, torch.full((1, 1), 50.0), value, toward)
    share, here, any_, _, sure = memory.read(places, at, toward)[0, 0].split([1, 2, 2, 1, 1])
    torch.testing.assert_close(
        torch.cat([share, here, any_, sure]),
        torch.cat([torch.ones(1), value[0, 0], value[0, 0], torch.ones(1)]),
        atol=0.1,
        rtol=0.1,
    )
    assert memory.read(places, at + 1.0, toward)[..., -1].item() == 0.0
    assert memory.read(places, at, toward + torch.pi)[..., 1:3].abs().max() == 0.0  # the other side of it
    torch.testing.assert_close(
        memory.read(places, at + 4.0, toward)[0, 0, :5], torch.cat([share, here, any_]), atol=1e-3, rtol=1e-3
    )


def test_nothing_is_forgotten_by_looking_elsewhere_and_changes_are_learned_where_one_looks() -> None:
    memory = PlaceMemory(side=16, spacing=0.25, value=1, most=10.0)
    here, there = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[2.0, 2.0]]])
    places = memory.empty(1, here)
    for _ in range(5):
        places = seen_at(memory, places, here, [1.0])
    kept = memory.read(places, here, torch.zeros(1, 1))
    for _ in range(1000):
        places = seen_at(memory, places, there, [-1.0])
    assert torch.equal(memory.read(places, here, torch.zeros(1, 1)), kept)
    for _ in range(100):
        places = seen_at(memory, places, here, [-1.0])
    assert memory.read(places, here, torch.zeros(1, 1))[0, 0, 1] < -0.9


def test_a_place_is_shut_as_often_as_it_was_seen_to_be() -> None:
    memory = PlaceMemory(side=16, spacing=0.25, value=1, most=100.0)
    at = torch.tensor([[[1.0, 1.0]]]).expand(1, 4, 2)  # the first sight: shut, and 0.7; the other three: open
    places = memory.write(memory.empty(1, at), at, torch.ones(1, 4), torch.tensor([[[0.7]]]), torch.zeros(1, 1))
    found = memory.read(places, at[:, :1], torch.zeros(1, 1))
    torch.testing.assert_close(found[0, 0, :2], torch.tensor([0.25, 0.7]), atol=0.04, rtol=0)


def test_a_view_stops_at_what_was_seen() -> None:
    memory = PlaceMemory(side=80, spacing=0.1, value=4, most=20.0)
    viewer = Viewer(dim=2, told=memory.told, width=8, reach=7.0, spacing=0.1)
    viewer.likely.data = torch.tensor([40.0, -20.0])
    writer = Writer(2, 4, 8)
    pose, depth = torch.tensor([[[1.0, 2.0, 0.7]]]), torch.full((1, 1, 16), 2.0)
    places = memory.empty(1, depth)
    with torch.no_grad():
        for _ in range(10):
            places = memory.write(places, *writer(torch.zeros(1, 1, 16, 2), depth, pose, 1.0))
        far = viewer(memory, places, pose, 16, 1.0)[2]
        nearer = viewer(memory, places, moved(pose, torch.tensor([[[1.0, 0.0, 0.0]]])), 16, 1.0)[2]
    assert (far - 2).abs().max() < 0.5
    assert (nearer[..., 6:10] - 1).abs().max() < 0.4


def test_columns_look_where_the_maze_draws_them() -> None:
    rng = np.random.default_rng(0)
    mazes = maze_walks.sample(2, rng)
    pose = maze_walks.starts(mazes, rng)
    seen = mazes.look(pose)[2]
    points = outlook(torch.from_numpy(pose)[:, None], torch.from_numpy(seen.wall.astype(float))[:, None, :, None], 1.0)
    off = (points - points.round()).abs().min(-1).values
    assert off.max() < 1e-3  # each lies on a wall, whose x or y is whole


def test_a_belief_is_a_value_and_restored_goes_on_bit_for_bit(clip: Clip) -> None:
    made = model()
    with torch.no_grad():
        seen = made.encode(clip)
        assert clip.actions is not None
        begun = made.believe(None, seen.between(0, 10), clip.actions[:, :9], NAME)
        assert begun.recurrent is not None
        kept = Belief(NAME, begun.latents, None, begun.recurrent.clone())
        rest, done = seen.between(10, 24), clip.actions[:, 9:]
        on, restored = made.believe(begun, rest, done), made.believe(kept, rest, done)
        whole = made.believe(None, seen, clip.actions, NAME)
    assert on.recurrent is not None
    assert restored.recurrent is not None
    assert torch.equal(on.recurrent, restored.recurrent)
    assert whole.recurrent is not None
    torch.testing.assert_close(on.recurrent, whole.recurrent)
    assert on.recurrent.shape == begun.recurrent.shape  # of any age


def test_reminded_of_what_was_seen_it_knows_it(clip: Clip) -> None:
    made = model()
    with torch.no_grad():
        seen = made.encode(clip)
        belief = made.believe(None, seen.between(0, 1), None, NAME)
        poses = 0.3 * torch.randn(3, 5, 3)
        reminded = made.remind(belief, poses, Latent(seen.values[:, 5:10], seen.times[:, 5:10]))
        assert not torch.equal(made.look(reminded, poses).values, made.look(belief, poses).values)
        assert torch.equal(made.where(reminded), made.where(belief))
        assert made.free(belief, torch.full((3, 1, 2), 5.0)).eq(0.5).all()


def test_several_pictures_for_a_pose_are_judged_as_one_by_one(clip: Clip) -> None:
    made = model()
    with torch.no_grad():
        seen = made.encode(clip.between(0, 12))
        belief = made.believe(None, seen.between(0, 6), clip.between(0, 6).actions, NAME)
        poses = torch.tensor([[[0.1, 0.0, 0.3], [0.0, 0.2, -0.4], [0.3, 0.1, 1.0]]]).expand(3, -1, -1)
        together = made.recognise(belief, poses, seen.between(6, 12)).view(3, 3, 2)
        for each in range(2):
            alone = Latent(seen.values[:, 6 + each :: 2], seen.times[:, 6 + each :: 2])
            torch.testing.assert_close(made.recognise(belief, poses, alone), together[..., each])
        with pytest.raises(ValueError, match="5 views cannot be as many for each of 3 poses"):
            made.recognise(belief, poses, seen.between(6, 11))


def test_recorded_poses_and_depths_are_read_as_they_are_meant(clip: Clip) -> None:
    assert clip.pose is not None
    assert clip.depth is not None
    assert clip.truth is not None
    pose = planar(clip.pose)
    torch.testing.assert_close(pose[..., :2], clip.truth[..., :2].to(pose), atol=1e-5, rtol=0)
    turned = torch.remainder(pose[..., 2] - clip.truth[..., 2].to(pose) + torch.pi, 2 * torch.pi) - torch.pi
    assert turned.abs().max() < 1e-5
    assert columns(clip.depth).shape == (3, 24, 16)


def test_shades_are_the_colours_of_parts_of_columns() -> None:
    video = torch.zeros(1, 1, 1, 3, 64, 64, dtype=torch.uint8)
    video[..., 1, 16:32, 8:12] = 128  # green, in the second quarter from above, in the third column
    found = shades(video).view(16, 3, 4)
    assert found[2, 1, 1] == 0
    found[2, 1, 1] = -2
    assert (found == -2).all()


def test_every_loss_teaches(clip: Clip) -> None:
    torch.manual_seed(0)
    made = model().train()
    for last in (made.viewer.blocks[2], made.strides[NAME].out):
        torch.nn.init.normal_(last.weight, 0, 0.05)
    losses = Revisits(made.config.dim).losses(made, clip, torch.Generator().manual_seed(0))
    assert set(losses) == {"depth", "colour", "stride", "covariance", "view", "way", "doubt", "which"}
    sum(losses.values(), torch.tensor(0.0)).backward()
    without = [name for name, each in made.named_parameters() if each.grad is None or not each.grad.abs().sum()]
    assert not without


def test_it_says_what_it_cannot_do_without(clip: Clip, tmp_path: Path) -> None:
    made = model()
    with pytest.raises(ValueError, match="perceives video, and the clip has none"):
        made.encode(replace(clip, video=None))
    with pytest.raises(ValueError, match=r"needs actions of shape \(batch, 3, 2\); nothing came"):
        made.believe(None, made.encode(clip.between(0, 4)), None, NAME)
    with pytest.raises(ValueError, match="walks with video, actions, depth and pose"):
        Revisits(made.config.dim).losses(made, replace(clip, depth=None), torch.Generator())
    with pytest.raises(ValueError, match="no JEPA of places of size 'vast'"):
        sized({NAME: BODY}, "vast")


@torch.no_grad()
def test_a_step_is_doubted_as_it_was_learned_to_be(clip: Clip) -> None:
    made = model()
    out = cast(Stride, made.strides[NAME]).out
    out.weight.zero_()
    out.bias[3:] = -9.0  # of bodies that hardly ever slip, however small they are
    assert clip.actions is not None
    belief = made.believe(None, made.encode(clip.between(0, 2)), clip.actions[:, :1], NAME)
    assert belief.recurrent is not None
    spread = belief.recurrent[:, -9:].unflatten(1, (3, 3)).diagonal(dim1=1, dim2=2)
    assert (spread > 0).all()
    assert (spread.sum(1) < 3.1 * np.exp(-9.0)).all()
