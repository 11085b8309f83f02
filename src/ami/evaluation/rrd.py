"""A scene as a Rerun recording: pictures, depth, points and cameras in space, frame by frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from ami.data.recording import needed
from ami.evaluation.scene import Scene

APPLICATION = "ami"


def recording(scene: Scene) -> bytes:
    """The content of an ``.rrd`` file. ``ValueError`` where the extra ``view`` is not installed.

    ``world/camera`` moves along its pose, with the recorded pictures in ``world/camera/seen`` and what was read out of
    a model in ``world/camera/read`` and ``world/camera/imagined``: each a pinhole camera, so depth of all three lies
    in space. ``world/points`` are of the frame at hand, ``world/way`` is the whole path.
    """
    rr = needed("rerun", "a Rerun recording", "view")
    made = rr.RecordingStream(APPLICATION, send_properties=False)
    stream = made.binary_stream()
    _still(rr, made, scene)
    for frame, time in enumerate(scene.times):
        made.set_time("frame", sequence=frame)
        made.set_time("time", duration=float(time))
        for entity, archetype in _frame(rr, scene, frame).items():
            made.log(entity, archetype)
    return stream.read(flush=True)


def _still(rr: Any, made: Any, scene: Scene) -> None:
    """What is the same in all frames: the path, and what the cameras are."""
    if scene.pose is not None:
        made.log("world/way", rr.LineStrips3D([scene.pose[:, :3, 3]]), static=True)
    if scene.intrinsics is None:
        return
    pictures = scene.video if scene.video is not None else scene.depth
    sides = {} if pictures is None else {"seen": pictures.shape[1:3]}
    if scene.told is not None:
        sides |= dict.fromkeys(("read", "imagined"), scene.told.imagined_video.shape[1:3])
    for name, (height, width) in sides.items():
        smaller = np.array([width, height] * 2) / np.array([*sides["seen"][::-1]] * 2)
        camera = scene.intrinsics * smaller
        pinhole = rr.Pinhole(
            focal_length=camera[:2],
            principal_point=camera[2:],
            resolution=[width, height],
            camera_xyz=rr.ViewCoordinates.RDF,  # right, down, ahead: OpenCV's axes
        )
        made.log(f"world/camera/{name}", pinhole, static=True)


def _frame(rr: Any, scene: Scene, frame: int) -> dict[str, Any]:
    """What there is of one frame, by the entity that shows it."""
    told, found = scene.told, {}
    if scene.pose is not None:
        pose = scene.pose[frame]
        found["world/camera"] = rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3])
    if scene.video is not None:
        found["world/camera/seen/colours"] = rr.Image(scene.video[frame])
    if scene.depth is not None:
        found["world/camera/seen/depth"] = rr.DepthImage(scene.depth[frame], meter=1.0)
    if scene.clouds:
        cloud = scene.clouds[frame]
        found["world/points"] = rr.Points3D(cloud.places, colors=cloud.colours)
    if told is not None and told.depth is not None:
        found["world/camera/read/depth"] = rr.DepthImage(told.depth[frame], meter=1.0)
    if told is not None and frame > 0:  # of the first frame nothing was imagined
        found["world/camera/imagined/colours"] = rr.Image(told.imagined_video[frame])
        if told.imagined_depth is not None:
            found["world/camera/imagined/depth"] = rr.DepthImage(told.imagined_depth[frame], meter=1.0)
    return found
