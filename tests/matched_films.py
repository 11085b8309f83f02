"""Quadruplets of films in which a ball goes behind a screen in one row, and comes out in it, or in another."""

from pathlib import Path

import numpy as np
import torch

from ami.data.video import FILM, write_film
from ami.types import Belief, Clip, Latent, WorldModel

BEFORE, HIDDEN, AFTER = 7, 5, 9  # frames
FRAMES = BEFORE + HIDDEN + AFTER
SHOWN = BEFORE + HIDDEN  # the first frame that shows what came out


def quadruplet(seed: int) -> dict[str, np.ndarray]:
    """Four films of 64 x 64 px: possible "aa" and "bb", impossible "ab" and "ba"."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(6)[:2] * 10 + 2
    greys = rng.integers(160, 256, 2)
    films = {}
    for name in ("aa", "bb", "ab", "ba"):
        video = np.zeros((FRAMES, 64, 64, 3), np.uint8)
        for frame in range(FRAMES):
            ball = "ab".index(name[int(frame >= SHOWN)])
            left = 2 * frame + 2
            video[frame, rows[ball] : rows[ball] + 8, left : left + 8] = greys[ball]
        video[BEFORE:SHOWN] = 90  # the screen
        films[name] = video
    return films


def write_films(folder: Path, seed: int, names: dict[str, str], fps: float = 10.0) -> None:
    """The four films of a quadruplet as mp4 files."""
    for name, video in quadruplet(seed).items():
        write_film(folder / names[name], video, fps)


class Remembers(WorldModel):
    """Knows that what goes behind the screen comes out in its row."""

    embodiments = {"film": FILM}  # noqa: RUF012
    latent_shape = (1, 2)

    def encode(self, clip: Clip) -> Latent:
        """The row of the ball, and whether it is seen."""
        assert clip.video is not None
        ball = (clip.video[:, :, -1, 0] > 130).float()
        mass = ball.sum((2, 3))
        row = (ball.sum(3) * torch.arange(64.0)).sum(2) / mass.clamp_min(1)
        return Latent(torch.stack([row, (mass > 9).float()], -1)[:, :, None], clip.times)

    def believe(self, belief, seen, actions, embodiment=""):
        held = torch.full((len(seen),), torch.nan) if belief is None else belief.recurrent  # anything may come
        for step in range(seen.steps):
            row, visible = seen.values[:, step, 0].unbind(-1)
            held = torch.where(visible > 0, row, held)
        name = embodiment if belief is None else belief.embodiment
        return Belief(name, Latent(seen.values[:, -1:], seen.times[:, -1:]), recurrent=held)

    def energy(self, belief, actions, future):
        row, visible = future.values[:, :, 0].unbind(-1)
        return (visible * (row - belief.recurrent[:, None]).abs()).nan_to_num(0)
