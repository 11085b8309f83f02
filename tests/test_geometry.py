"""Cameras, points and poses agree with closed forms: a cube whose corners are known, pixels that come back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ami.geometry import (
    angle,
    assemble,
    from_quaternion,
    from_six,
    inverse,
    known,
    place,
    project,
    relative,
    render,
    rigid,
    to_six,
    unproject,
)

CAMERA = torch.tensor([60.0, 55.0, 33.0, 23.0], dtype=torch.float64)
SEEDS = st.integers(0, 2**31)


def turns(*batch: int, seed: int = 0) -> Tensor:
    """Random rotations."""
    generator = torch.Generator().manual_seed(seed)
    return from_quaternion(torch.randn(*batch, 4, generator=generator, dtype=torch.float64))


def poses(*batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return assemble(turns(*batch, seed=seed), torch.randn(*batch, 3, generator=generator, dtype=torch.float64))


def test_a_cube_whose_corners_are_known() -> None:
    """A camera 4 m in front of a 2 m cube, 90 degrees wide: the corners of the near side lie at a third of the way."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)  # in the world: x right, y down, z away
    eye = assemble(torch.eye(3), torch.tensor([0.0, 0.0, -4.0]))
    seen = project(place(inverse(eye), corners), torch.tensor([50.0, 50.0, 50.0, 50.0]))
    near = seen[corners[:, 2] < 0]
    assert torch.allclose(near[:, 2], torch.tensor(3.0))
    assert torch.allclose(near[:, :2], 50 + 50 / 3 * corners[corners[:, 2] < 0][:, :2])
    right_low = seen[(corners == torch.tensor([1.0, 1.0, 1.0])).all(1)][0]
    assert torch.allclose(right_low, torch.tensor([60.0, 60.0, 5.0]))  # right is a larger column, down a larger row


def test_a_camera_that_turns_right_sees_what_was_right_ahead() -> None:
    """It turns about its own y axis, which points down, so from z towards x."""
    half = math.radians(90) / 2
    pose = assemble(from_quaternion(torch.tensor([0.0, math.sin(half), 0.0, math.cos(half)])), torch.zeros(3))
    ahead = place(inverse(pose), torch.tensor([[2.0, 0.0, 0.0]]))
    assert torch.allclose(ahead, torch.tensor([[0.0, 0.0, 2.0]]), atol=1e-6)


def test_a_pixel_s_own_place_is_in_its_middle() -> None:
    points = unproject(torch.full((2, 4), 3.0), torch.tensor([2.0, 2.0, 2.0, 1.0]))
    assert points[0, 0].tolist() == [-2.25, -0.75, 3.0]
    assert points[1, 3].tolist() == [2.25, 0.75, 3.0]


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_depth_comes_back_from_points(seed: int) -> None:
    """Sixteen bits of depth, half of a millimetre to 65 m: the same number comes back, unknown stays unknown."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randint(0, 2**16, (2, 3, 48, 64), generator=generator)
    kept[torch.rand(kept.shape, generator=generator) < 0.2] = 0
    depth = kept.float() / 1000
    camera = CAMERA.float().expand(2, 3, 4)
    points = unproject(depth, camera)
    assert torch.equal(known(points), kept > 0)
    again = render(points.flatten(2, 3), camera, 48, 64)
    assert torch.equal((again * 1000).round().long(), kept)


def test_the_nearest_is_seen_and_what_is_behind_or_beside_is_not() -> None:
    points = torch.tensor([[0.0, 0, 3], [0, 0, 2], [0, 0, -1], [9, 0, 1], [0, 0, 0]])
    seen = render(points, torch.tensor([2.0, 2.0, 1.0, 1.0]), 3, 3)
    assert seen[1, 1] == 2
    assert seen.sum() == 2


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_moving_the_world_leaves_relative_poses(seed: int) -> None:
    one, other, world = poses(3, seed=seed)
    between = relative(one, other)
    assert torch.allclose(relative(world @ one, world @ other), between)
    assert torch.allclose(one @ between, other)
    points = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(place(one, place(between, points)), place(other, points))
    assert torch.allclose(place(inverse(one), place(one, points)), points)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_six_numbers_are_a_rotation(seed: int) -> None:
    turn = turns(4, seed=seed)
    assert torch.allclose(from_six(to_six(turn)), turn)
    any_six = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    made = from_six(any_six)
    assert rigid(assemble(made, torch.zeros(4, 3, dtype=torch.float64)), 1e-9).all()
    assert torch.allclose(from_six(2 * any_six), made)
    assert (made[..., 0] * any_six[..., :3]).sum(-1).min() > 0


@pytest.mark.parametrize("turned", [0.0, 1e-4, 1.0, 3.1, math.pi])
def test_an_angle_is_how_far_was_turned(turned: float) -> None:
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    half = torch.tensor([math.cos(turned / 2)], dtype=torch.float64)
    rotation = from_quaternion(torch.cat([math.sin(turned / 2) * axis, half]))
    assert angle(rotation).item() == pytest.approx(turned, abs=1e-9)


def test_what_is_not_rigid() -> None:
    good = poses(1)[0]
    assert rigid(good)
    stretched, mirrored, sheared, torn, unknown = good.clone(), good.clone(), good.clone(), good.clone(), good.clone()
    stretched[:3, :3] *= 1.01
    mirrored[:3, 1] *= -1
    sheared[0, 0] += 0.05
    torn[3, 0] = 0.1
    unknown[0, 3] = torch.nan
    assert not rigid(torch.stack([stretched, mirrored, sheared, torn, unknown])).any()
