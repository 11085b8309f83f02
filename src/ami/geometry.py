"""What cameras see of points, and how poses move both: the one place where a frame or a sign is decided.

Metres and pixels. A camera looks along +z with x right and y down (OpenCV's axes, not OpenGL's). ``intrinsics`` are
``fx fy cx cy`` in pixels from the *corner* of the picture: the centre of the first pixel is (0.5, 0.5), a camera of
``width`` pixels that looks straight ahead has ``cx = width / 2``, and a picture made half as large has half of each.
Calibrations that count from the centre of the first pixel (OpenCV, TUM, 7-Scenes) need 0.5 more. A depth is the z of
what is seen, not its distance; 0 is unknown, and an unknown point is (0, 0, 0), where the camera is and nothing else.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def unproject(
    depth: Float[Tensor, "*batch height width"], intrinsics: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "*batch height width 3"]:
    """The point that each pixel shows, in camera axes, metres. Where depth is unknown: (0, 0, 0).

    Source: the pinhole camera (Hartley and Zisserman 2004, section 6.1).
    """
    fx, fy, cx, cy = (each[..., None, None] for each in intrinsics.unbind(-1))
    column, row = (torch.arange(size, dtype=depth.dtype, device=depth.device) + 0.5 for size in depth.shape[:-3:-1])
    return torch.stack([(column - cx) / fx * depth, (row[:, None] - cy) / fy * depth, depth], -1)


def project(
    points: Float[Tensor, "*batch points 3"], intrinsics: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "*batch points 3"]:
    """Column, row (pixels, from the picture's corner) and depth (metres) at which each point in camera axes is seen.

    Points with a depth of 0 or less are not seen: their column and row are NaN.
    """
    fx, fy, cx, cy = (each[..., None] for each in intrinsics.unbind(-1))
    x, y, z = points.unbind(-1)
    ahead = torch.where(z > 0, z, torch.nan)
    return torch.stack([x / ahead * fx + cx, y / ahead * fy + cy, z], -1)


def render(
    points: Float[Tensor, "*batch points 3"], intrinsics: Float[Tensor, "*#batch 4"], height: int, width: int
) -> Float[Tensor, "*batch height width"]:
    """The depth picture that points in camera axes give: the nearest in each pixel, 0 where there is none."""
    column, row, depth = project(points, intrinsics).unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = torch.where(inside, row.floor() * width + column.floor(), height * width).long()
    far = depth.new_full((*depth.shape[:-1], height * width + 1), torch.inf)  # the last takes what is not seen
    nearest = far.scatter_reduce(-1, pixel, depth, "amin")[..., :-1]
    return torch.where(nearest.isinf(), 0.0, nearest).unflatten(-1, (height, width))


def known(points: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
    """Which of points in camera axes were seen at all: those that are not (0, 0, 0)."""
    return (points != 0).any(-1)


def place(
    pose: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*batch points 3"]
) -> Float[Tensor, "*batch points 3"]:
    """The same points in the axes that ``pose`` leads to: camera to world, metres."""
    return points @ pose[..., :3, :3].mT + pose[..., None, :3, 3]


def inverse(pose: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """The way back: world to camera, for a pose that is rigid."""
    back = pose[..., :3, :3].mT
    return assemble(back, -(back @ pose[..., :3, 3:])[..., 0])


def relative(one: Float[Tensor, "*batch 4 4"], other: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """The pose of ``other`` seen from ``one``: it leads from the axes of the other camera to those of the first.

    Both are poses in one world, and nothing changes when the whole world is moved.
    """
    return inverse(one) @ other


def assemble(
    rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """A pose from its rotation and its translation, metres."""
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=rotation.dtype, device=rotation.device)
    top = torch.cat([rotation, translation[..., None]], -1)
    return torch.cat([top, last.expand(*top.shape[:-2], 1, 4)], -2)


def from_quaternion(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation of a quaternion x y z w of any length but 0, as TUM and ROS order it."""
    x, y, z, w = functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def to_six(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """A rotation as its first two columns, one after the other: six numbers without a jump anywhere.

    Source: Zhou et al. 2019, "On the continuity of rotation representations in neural networks", equation 14.
    """
    return rotation[..., :2].mT.flatten(-2)


def from_six(six: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation that any six numbers stand for whose halves are not parallel (Zhou et al. 2019, equation 15)."""
    first = functional.normalize(six[..., :3], dim=-1)
    along = (first * six[..., 3:]).sum(-1, keepdim=True)
    second = functional.normalize(six[..., 3:] - along * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def angle(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """By how much a rotation turns, radians, 0 to pi."""
    # The arc cosine alone has no digits left near 0; the antisymmetric part has them there.
    twice = torch.stack([rotation[..., k - 1, k - 2] - rotation[..., k - 2, k - 1] for k in range(3)], -1)
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(twice.norm(dim=-1), trace - 1)


def rigid(pose: Float[Tensor, "*batch 4 4"], tolerance: float = 1e-3) -> Bool[Tensor, "*batch"]:
    """Whether a pose moves without stretching, shearing or mirroring; ``tolerance`` is for each number of RᵀR."""
    turn, last = pose[..., :3, :3], pose.new_tensor([0.0, 0.0, 0.0, 1.0])
    unit = (turn.mT @ turn - torch.eye(3, dtype=pose.dtype, device=pose.device)).abs().amax((-1, -2)) <= tolerance
    straight = (pose[..., 3, :] - last).abs().amax(-1) <= tolerance
    return unit & straight & (torch.linalg.det(turn) > 0) & pose.isfinite().all((-1, -2))


def from_motion(motion: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 4 4"]:
    """The pose that a motion leads to: metres right, down and ahead, then the axis of a turn times its angle (radians).

    Source: Rodrigues' formula, as the exponential of the turn's cross product (Hartley and Zisserman 2004, A4.3.2).
    """
    zero = torch.zeros_like(motion[..., 3])
    x, y, z = motion[..., 3:].unbind(-1)
    cross = torch.stack([torch.stack(row, -1) for row in ([zero, -z, y], [z, zero, -x], [-y, x, zero])], -2)
    return assemble(torch.linalg.matrix_exp(cross), motion[..., :3])


def to_motion(pose: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 6"]:
    """The motion that leads to a pose; its turn must be less than half of a whole one."""
    turn = pose[..., :3, :3]
    twice = torch.stack([turn[..., k - 1, k - 2] - turn[..., k - 2, k - 1] for k in range(3)], -1)
    by = angle(turn)[..., None]
    axis = torch.where(by > 1e-6, twice * by / (2 * by.sin()).clamp_min(1e-12), twice / 2)
    return torch.cat([pose[..., :3, 3], axis], -1)
