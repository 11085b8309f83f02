"""Recordings of a room whose walls are known in closed form, written in the layouts that RGB-D data come in."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor

from ami import geometry

WALLS = torch.tensor([2.0, 1.5, 2.5], dtype=torch.float64)  # metres from the middle of the room, in the world's axes
WIDTH, HEIGHT = 80, 60
CAMERA = {"fx": 60.0, "fy": 60.0, "cx": 39.5, "cy": 29.5}  # px, as OpenCV counts
_INTRINSICS = torch.tensor([60.0, 60.0, 40.0, 30.0], dtype=torch.float64)


def walk(frames: int = 6) -> Tensor:
    """Poses of a camera that goes through the room and turns, camera to world."""
    poses = []
    for k in range(frames):
        turn = torch.tensor([0.05 * k - 0.1, 0.15 * k - 0.3, 0.02 * k, 1.0], dtype=torch.float64)
        where = torch.tensor([0.25 * k - 0.6, 0.1 * k - 0.2, 0.2 * k - 1.0], dtype=torch.float64)
        poses.append(geometry.assemble(geometry.from_quaternion(turn), where))
    return torch.stack(poses)


def depth_of(poses: Tensor) -> Tensor:
    """The z at which each pixel's ray meets a wall, metres."""
    one = torch.ones(len(poses), HEIGHT, WIDTH, dtype=torch.float64)
    ray = geometry.unproject(one, _INTRINSICS.expand(len(poses), 4)).flatten(1, 2) @ poses[:, :3, :3].mT
    eye = poses[:, None, :3, 3]
    return ((WALLS * ray.sign() - eye) / ray).amin(-1).unflatten(1, (HEIGHT, WIDTH))


def off_the_walls(points: Tensor) -> Tensor:
    """How far points in the world's axes are from the nearest wall, metres."""
    return (points.abs() - WALLS).abs().amin(-1)


def colours(frames: int) -> np.ndarray:
    """Red tells the column, green the row, blue the frame."""
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([np.stack([3 * column, 4 * row, 0 * row + 10 * k], -1) for k in range(frames)]).astype(np.uint8)


def write_tum(folder: Path, poses: Tensor, *, scale: float = 5000.0, seconds: float = 0.1) -> Path:
    """TUM's layout, with the camera in camera.json."""
    depth = depth_of(walk(len(poses)))
    lines: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": ["# a comment"]}
    for k, pose in enumerate(poses):
        time = 100 + seconds * k
        for name, shift in (("rgb", 0.0), ("depth", 0.003)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            lines[name].append(f"{time + shift:.6f} {name}/{k}.png")
        Image.fromarray(colours(len(poses))[k]).save(folder / "rgb" / f"{k}.png")
        kept = (depth[k] * 5000).round().numpy().astype(np.uint16)
        Image.fromarray(kept).save(folder / "depth" / f"{k}.png")
        numbers = " ".join(
            f"{x:.9f}" for x in [*pose[:3, 3].tolist(), *Rotation.from_matrix(pose[:3, :3].numpy()).as_quat()]
        )
        lines["groundtruth"] += [f"{time - 0.005:.6f} {numbers}"]
    for name, held in lines.items():
        (folder / f"{name}.txt").write_text("\n".join(held) + "\n")
    (folder / "camera.json").write_text(json.dumps({**CAMERA, "depth_scale": scale}))
    return folder


def write_seven_scenes(folder: Path, poses: Tensor, *, units: float = 1000.0) -> Path:
    """7-Scenes' layout, with a camera.json of our own."""
    folder.mkdir(parents=True, exist_ok=True)
    depth = depth_of(walk(len(poses)))
    for k, pose in enumerate(poses):
        name = folder / f"frame-{k:06d}"
        Image.fromarray(colours(len(poses))[k]).save(f"{name}.color.png")
        Image.fromarray((depth[k] * units).round().numpy().astype(np.uint16)).save(f"{name}.depth.png")
        np.savetxt(f"{name}.pose.txt", pose.numpy(), fmt="%.9e")
    (folder / "camera.json").write_text(json.dumps(CAMERA))
    return folder
