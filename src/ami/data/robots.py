"""Robot recordings as episodes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ami.data.episodes import Episode
from ami.types import Embodiment

# BridgeData V2 (Walke et al. 2023): 5 Hz; an action moves the gripper by metres (xyz) and radians (roll pitch yaw), and
# opens it (1) or closes it (0). The bounds are the robot's command limits; a few recorded actions lie beyond them, are
# kept as they are, and the data doctor counts them.
WIDOWX = Embodiment(
    "widowx",
    step_seconds=0.2,
    low=(-0.05, -0.05, -0.05, -0.25, -0.25, -0.25, 0.0),
    high=(0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1.0),
)
_ARRAYS = ("images", "actions", "states")


def read_bridge(path: Path) -> Episode:
    """Read a WidowX episode: ``.npz`` with images (T 64 64 3) uint8, actions (T 7), states (T 7), an instruction.

    The action after the last frame is dropped, for its outcome was not filmed; states become ``proprio``; the
    instruction is kept in ``source``. ``ValueError`` names a file that is missing, damaged, of other content or NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no robot episode {path}")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no zip archive, and an .npz is one")
        with np.load(path, allow_pickle=False) as held:
            missing = [name for name in _ARRAYS if name not in held]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
            images, actions, states = (held[name] for name in _ARRAYS)
            instruction = str(held["instruction"]) if "instruction" in held else ""
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a robot episode that can be read: {error}") from error
    if actions.shape != (len(images), WIDOWX.action_dim):
        raise ValueError(f"{path}: actions have shape {actions.shape}; wanted ({len(images)}, {WIDOWX.action_dim})")
    return Episode(
        times=np.arange(len(images)) * WIDOWX.step_seconds,
        video=images,
        proprio=states,
        actions=actions[:-1],
        source=f"{path.name}: {instruction}" if instruction else path.name,
    )
