"""Writes the small LeRobot datasets in this folder with the ``lerobot`` package itself, in an environment of its own.

python write.py v2.1    with lerobot 0.3.3
python write.py v3.0    with lerobot 0.4.4
"""

import sys
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset

LENGTHS = (5, 7, 4)
FPS = 10


def picture(episode: int, frame: int, height: int, width: int) -> np.ndarray:
    """Grey, brighter with the episode, and a white column that goes to the right."""
    shown = np.full((height, width, 3), 40 + 50 * episode, np.uint8)
    left = 8 + 4 * frame
    shown[:, left : left + 8] = 250
    return shown


def main(version: str) -> None:
    """Three episodes: one camera as a film, one as single pictures."""
    assert version == CODEBASE_VERSION, f"this lerobot writes {CODEBASE_VERSION}"
    numbers = {"dtype": "float32", "names": None}
    seen = {"shape": (48, 64, 3), "names": ["height", "width", "channels"]}
    features = {
        "action": numbers | {"shape": (2,), "names": ["x", "y"]},
        "observation.state": numbers | {"shape": (3,), "names": ["x", "y", "grip"]},
        "observation.images.front": seen | {"dtype": "video"},
        "observation.images.wrist": seen | {"dtype": "image", "shape": (32, 32, 3)},
    }
    folder = Path(__file__).parent / version
    dataset = LeRobotDataset.create(f"ami/{version}", fps=FPS, features=features, root=folder, robot_type="toy_arm")
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            row = {
                "action": np.array([episode, frame], np.float32),
                "observation.state": np.array([episode, frame, 0.5], np.float32),
                "observation.images.front": picture(episode, frame, 48, 64),
                "observation.images.wrist": picture(episode, frame, 32, 32),
            }
            task = f"task {episode % 2}"
            if version == "v2.1":
                dataset.add_frame(row, task=task)
            else:
                dataset.add_frame(row | {"task": task})
        dataset.save_episode()
    if version != "v2.1":
        dataset.finalize()


if __name__ == "__main__":
    main(sys.argv[1])
