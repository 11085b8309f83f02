"""A process that writes to a memory until it is killed, and says how many moments are acknowledged."""

from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from ami.memory.episodic import Memory
from ami.memory.moment import Moment

DIM = 16


def moment(number: int) -> Moment:
    """All of it follows from its number, so that whoever finds it can say whether it is whole."""
    rng = np.random.default_rng(number)
    latent = rng.normal(size=DIM).astype(np.float16)
    return Moment(
        latent, float(number), None, f"episode {number // 50}", "made", None, b"\xff\xd8\xff" + rng.bytes(200)
    )


def write(folder: Path, acknowledged: Connection) -> None:
    """Until it is killed."""
    with Memory.open(folder, write=True) as memory:
        number = len(memory)
        while True:
            memory.append([moment(number + k) for k in range(8)])
            number += 8
            acknowledged.send(number)
            if number % 80 == 0:
                memory.sort()
