"""What a recording shows of a place, and what is read out of a model that looks at it: arrays, to be drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ami import geometry
from ami.data.camera import CAMERA
from ami.data.episodes import Store
from ami.evaluation import places
from ami.types import Clip, WorldModel

_LEARN = 48  # recordings that read-outs learn from, at most
_LEAST = 4  # frames that teach a read-out anything
_HELD = 4  # views before the one that is imagined, at most
_CLOUD = 4096  # points of a frame, at most


@dataclass(frozen=True)
class Told:
    """What linear read-outs say of a model's latents, on a grid of cells; the model saw colours alone.

    A view is imagined from those before it and from how the camera moved since: of the first frame there is none, and
    its depth is NaN. Where the store has no depth, nobody could teach to read it.
    """

    taught: str  # by what read-outs were taught
    depth: Float[np.ndarray, "frames grid grid"] | None  # metres, of what was seen
    imagined_depth: Float[np.ndarray, "frames grid grid"] | None
    imagined_video: UInt8[np.ndarray, "frames grid grid 3"]


@dataclass(frozen=True)
class Cloud:
    """Points of one frame in the world's axes."""

    places: Float[np.ndarray, "points 3"]  # metres
    colours: UInt8[np.ndarray, "points 3"]


@dataclass(frozen=True)
class Scene:
    """One recording. What was not recorded is ``None``; where there are no poses, the camera is the world."""

    title: str
    times: Float[np.ndarray, "frames"]  # seconds
    video: UInt8[np.ndarray, "frames height width 3"] | None
    depth: Float[np.ndarray, "frames height width"] | None  # metres, 0 = unknown
    pose: Float[np.ndarray, "frames 4 4"] | None  # camera to world, metres
    intrinsics: Float[np.ndarray, "4"] | None
    clouds: tuple[Cloud, ...]  # of each frame, () where nobody knows where things are
    told: Told | None = None


def scene(store: Store, episode: int, model: WorldModel | None = None) -> Scene:
    """What ``episode`` shows, and what is read out of a model. ``ValueError`` where there is no space in it."""
    if not 0 <= episode < len(store):
        raise ValueError(f"there is no episode {episode}: {store.folder} holds {len(store)}, from 0")
    if not {"depth", "points", "pose"} & store.fields.keys():
        raise ValueError(f"{store.folder} holds no depth, points or poses, so there is no place in it to look at")
    held, source = store.arrays(episode), store.episodes[episode].source
    return Scene(
        source or f"episode {episode} of {store.folder.name}",
        held["times"],
        held.get("video"),
        held.get("depth"),
        held.get("pose"),
        held.get("intrinsics"),
        _clouds(held),
        None if model is None else _told(store, episode, model),
    )


def _clouds(held: dict[str, np.ndarray]) -> tuple[Cloud, ...]:
    """Recorded points, or those of the depth pictures."""
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in held.items()}
    if "points" in held:
        points = tensors["points"].float()
    elif {"depth", "intrinsics"} <= held.keys():
        points = geometry.unproject(tensors["depth"].float(), tensors["intrinsics"].float()).flatten(1, 2)
    else:
        return ()
    shown = torch.full(points.shape, 150, dtype=torch.uint8)
    if "points" not in held and "video" in held:
        shown = tensors["video"].flatten(1, 2)
    elif {"video", "intrinsics"} <= held.keys():
        shown = _looked_up(tensors["video"], points, tensors["intrinsics"].float())
    poses = tensors["pose"].float() if "pose" in held else torch.eye(4).expand(len(points), 4, 4)
    found = []
    for pose, point, colour in zip(poses, points, shown, strict=True):
        known = geometry.known(point).nonzero()[:, 0]
        kept = known[:: -(-len(known) // _CLOUD) or 1]
        found.append(Cloud(geometry.place(pose, point[kept]).numpy(), colour[kept].numpy()))
    return tuple(found)


def _looked_up(video: Tensor, points: Tensor, intrinsics: Tensor) -> UInt8[Tensor, "frames points 3"]:
    """The colour of the pixel in which each point is seen; grey where it is in none."""
    height, width = video.shape[1:3]
    column, row, _ = geometry.project(points, intrinsics.expand(len(points), 4)).unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = torch.where(inside, row.floor() * width + column.floor(), 0).long()
    seen = video.flatten(1, 2).gather(1, pixel[..., None].expand(-1, -1, 3))
    return torch.where(inside[..., None], seen, torch.tensor(150, dtype=torch.uint8))


def _told(store: Store, episode: int, model: WorldModel) -> Told:
    """Taught by other recordings of the store, or by every second frame where there is no other."""
    model.known(CAMERA.name)
    if not {"video", "pose"} <= store.fields.keys():
        raise ValueError(f"{store.folder} has no colours with poses, and a checkpoint is shown those")
    clip, eye = _whole(store, episode), places.model_eye(model)
    others = [number for number in range(len(store)) if number != episode]
    others = [others[k] for k in np.linspace(0, len(others) - 1, min(len(others), _LEARN)).astype(int)]
    count = "another recording" if len(others) == 1 else f"{len(others)} other recordings"
    taught = count if others else "every second frame of this one"
    seen = eye(clip)[0]
    rows = [(eye(each)[0], _wanted(each)) for each in (_whole(store, number) for number in others)]
    learn, wanted = (torch.cat(each) for each in zip(*rows, strict=True)) if rows else (seen[::2], _wanted(clip)[::2])
    if len(learn) < _LEAST:
        raise ValueError(
            f"{len(learn)} frames are too few to learn from how to read a latent; leave the checkpoint out, or view a "
            "store with more"
        )
    asked = torch.cat(
        [seen, _imagined(model, clip, seen)]
    )  # views that are imagined carry no colours, so none are read
    said = places.read_ridge(places.compared(model, learn), wanted, places.compared(model, asked)).float()
    (depth, imagined_depth), (_, video) = ((each[: clip.steps], each[clip.steps :]) for each in _parted(said))
    imagined_depth[:1] = torch.nan
    pixels = (255 * video.clamp(0, 1)).byte().unflatten(1, (3, places.GRID, places.GRID)).movedim(1, -1)
    pixels[:1] = 0
    cells = (places.GRID, places.GRID)
    near, far = (
        each.clamp_min(0).unflatten(1, cells).numpy() if each.shape[1] else None for each in (depth, imagined_depth)
    )
    return Told(taught, near, far, pixels.numpy())


def _imagined(model: WorldModel, clip: Clip, seen: Float[Tensor, "frames feature"]) -> Float[Tensor, "frames feature"]:
    """The view of each frame, from the few before it; the first stands for itself."""
    assert clip.pose is not None
    views = [seen[:1]]
    for asked in range(1, clip.steps):
        held = torch.arange(max(0, asked - _HELD), asked)
        motions = geometry.to_motion(geometry.relative(clip.pose[:, held], clip.pose[:, held + 1]))
        views.append(places.imagined(model, seen[None, held], motions))
    return torch.cat(views)


def _wanted(clip: Clip) -> Float[Tensor, "frames cells"]:
    """Colours of the cells, and their depth where there is any; what is unknown is taken for the cell's mean."""
    colours = places.pixels(clip)[0]
    if clip.depth is None:
        return colours
    depth = places.coarse_depth(clip)[0]
    depth = torch.where(depth.isnan(), depth.nanmean(0), depth)
    return torch.cat([colours, torch.where(depth.isnan(), depth.nanmean(), depth)], 1)


def _parted(said: Float[Tensor, "rows cells"]) -> tuple[Tensor, Tensor]:
    """Depth, which may have no cells, and colours."""
    return said[:, 3 * places.GRID**2 :], said[:, : 3 * places.GRID**2]


def _whole(store: Store, episode: int) -> Clip:
    return store.clips(np.array([[episode, 0]]), store.episodes[episode].length)
