"""Moments made up, and a process that writes them until it is killed, and says how many are acknowledged."""

import multiprocessing
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection

import numpy as np

from ami.memory.episodic import About, Memory
from ami.memory.moment import Moment

DIM = 16
ABOUT = About("c0ffee", "film", DIM)
JPEG = b"\xff\xd8\xff"


def moments(count: int, seed: int = 0, dim: int = DIM, spread: int = 5) -> list[Moment]:
    """Few places, times and episodes, so that bounds fall on them."""
    rng = np.random.default_rng(seed)
    return [
        Moment(
            latent=rng.normal(size=dim).astype(np.float16),
            time=float(rng.integers(spread)),
            place=tuple(rng.integers(3, size=3).astype(float).tolist()) if rng.random() < 0.7 else None,
            episode=f"e{rng.integers(4)}",
            source=f"s{k}",
            surprise=float(rng.random()) if rng.random() < 0.5 else None,
            thumbnail=JPEG + bytes([k % 256]) if rng.random() < 0.5 else None,
            turn=tuple(rng.normal(size=3).tolist()) if rng.random() < 0.5 else None,
        )
        for k in range(count)
    ]


def same(one: Moment, other: Moment) -> bool:
    """Whether all of one is as in the other."""
    facts = [(m.time, m.place, m.turn, m.episode, m.source, m.surprise, m.thumbnail) for m in (one, other)]
    return facts[0] == facts[1] and np.array_equal(one.latent, other.latent)


def radius(points: np.ndarray, chosen: list[int]) -> float:
    """How far the point that is farthest from all that are chosen is from them."""
    return float(np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(1).max())


def moment(number: int) -> Moment:
    """All of it follows from its number, so that whoever finds it can say whether it is whole."""
    rng = np.random.default_rng(number)
    latent = rng.normal(size=DIM).astype(np.float16)
    return Moment(latent, float(number), None, f"episode {number // 50}", "made", None, JPEG + rng.bytes(200))


def free(place: str) -> Memory:
    """A memory whose writer was just killed, open for writing: a server needs a moment to notice."""
    for _ in range(200):
        try:
            return Memory.open(place, write=True)
        except ValueError:
            time.sleep(0.02)
    return Memory.open(place, write=True)


def kill(place: str, times: int) -> Iterator[float]:
    """Kill the process that writes to a memory, again and again, and look for every moment that it acknowledged.

    How many CPU-seconds it took to open the memory again, each time.
    """
    rng, acknowledged, context = np.random.default_rng(0), 0, multiprocessing.get_context("fork")
    for _ in range(times):
        ours, theirs = context.Pipe(duplex=False)
        writer = context.Process(target=write, args=(place, theirs))
        writer.start()
        theirs.close()
        acknowledged = ours.recv()
        time.sleep(rng.random() * 0.05)
        writer.kill()
        with suppress(EOFError):
            while True:
                acknowledged = ours.recv()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        began = time.process_time()
        with free(place) as memory:
            yield time.process_time() - began
            assert len(memory) >= acknowledged
            assert memory.check() == []
    with Memory.open(place) as memory:
        for k, (_, each) in enumerate(memory.moments()):
            assert same(each, moment(k))
        assert k + 1 >= acknowledged
        assert memory.recall(moment(7).latent, 1)[0].number == 8


def write(place: str, acknowledged: Connection) -> None:
    """Until it is killed."""
    with free(place) as memory:
        number = len(memory)
        while True:
            memory.append([moment(number + k) for k in range(8)])
            number += 8
            acknowledged.send(number)
            if number % 80 == 0:
                memory.sort()
