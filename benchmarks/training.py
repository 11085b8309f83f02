"""Frames per second of a whole training step of the baby, and where its time goes, on one thread at 64 px.

    python benchmarks/training.py [--rounds 40]

One step is what `ami train baby` does at each step of its first stage: 64 clips of 9 steps are read, perceived, judged
by the objective, and learned from. Beside it the same encoder as one would write it with ordinary convolutions in
channels-last memory. Times are CPU-seconds, so that a busy neighbour counts less; the two encoders take turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ami.data.episodes import Store
from ami.data.loader import Loader
from ami.models.jepa import JEPA
from ami.nn.tokenizers import PatchStem
from ami.recipes.baby import baby
from ami.training.loop import Progress, begin
from ami.types import Latent
from ami.worlds import rooms

_TURN = 5  # steps: at each change of turns one model finds the caches full of the other


class Convolutions(nn.Module):
    """The stem with the same numbers of weights and products, through the convolution library."""

    def __init__(self, stem: PatchStem) -> None:
        super().__init__()
        first, second, third = (layer.out_features for layer in (stem.piece, stem.quarter, stem.token))
        layers = (nn.Conv2d(3, first, 4, 4), nn.Conv2d(first, second, 2, 2), nn.Conv2d(second, third, 2, 2))
        self.layers = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
        self.layers.to(memory_format=torch.channels_last)

    def forward(self, video: UInt8[Tensor, "frames 1 3 height width"]) -> Float[Tensor, "frames tokens width"]:
        """One token for each 16 x 16 px."""
        # A store's pictures are channels-last in memory already.
        return self.layers((video[:, 0].float() - 127.5) / 64).flatten(2).mT


class Clock:
    """CPU-seconds of this process between one mark and the next, by name."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(list)
        self._last = time.process_time()

    def mark(self, name: str) -> None:
        """What has passed since the last mark was ``name``."""
        now = time.process_time()
        self.spent[name].append(now - self._last)
        self._last = time.process_time()


def step(progress: Progress, loader: Loader, number: int, clock: Clock) -> int:
    """One step of training, as in :func:`ami.training.loop.fit`, with a mark after each part; the number of frames."""
    model, objective, optimiser = progress.model, progress.objective, progress.optimiser
    clock.mark("between")
    (clip,) = loader.batch(number)
    assert clip.video is not None
    clock.mark("read")
    seen = model.encode(clip)
    clock.mark("encode")
    # The graph is cut at the latents, so that the two halves of the backward pass can be told apart.
    leaf = seen.values.detach().requires_grad_()
    model.encode = lambda clip: Latent(leaf, clip.times)
    losses = objective.losses(model, clip, torch.Generator().manual_seed(number))
    del model.encode
    total = torch.stack(list(losses.values())).sum()
    clock.mark("objective")
    optimiser.zero_grad()
    total.backward()
    clock.mark("objective, backward")
    seen.values.backward(leaf.grad)
    clock.mark("encode, backward")
    nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
    optimiser.step()
    clock.mark("optimiser")
    return clip.video.shape[:3].numel()


def main() -> None:
    """Take turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="steps of each kind")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "walks", rooms.EMBODIMENT, rooms.TRUTH)
        store.append(rooms.collect("door", 150, 64, seed=0))
        recipe = baby([store])
        ours, theirs = recipe.build(), recipe.build()
        assert isinstance(ours, JEPA)
        assert isinstance(theirs, JEPA)
        theirs.encoder.stem = Convolutions(ours.encoder.stem)
        clocks = {"patches as matrix products": (ours, Clock()), "nn.Conv2d, channels last": (theirs, Clock())}
        begun = {name: begin(model.train(), recipe.stages[0], 0) for name, (model, _) in clocks.items()}
        loader, frames = recipe.stages[0].loader(ours), 0
        for turn in range(0, rounds + _TURN, _TURN):
            for name, (_, clock) in clocks.items():
                for number in range(turn, turn + _TURN):
                    frames = step(begun[name], loader, number, clock)
        table({name: clock.spent for name, (_, clock) in clocks.items()}, frames, ours)


def table(spent: dict[str, dict[str, list[float]]], frames: int, model: JEPA) -> None:
    """Print medians; the first turn, which warms caches, is left out."""
    medians = {
        name: {part: float(np.median(times[_TURN:])) for part, times in each.items()} for name, each in spent.items()
    }
    ours, theirs = medians.values()
    count = sum(parameter.numel() for parameter in model.parameters())
    how = f"{frames} frames of 64×64 RGB, {model.config.precision}, one thread"
    print(f"\nOne training step of the baby ({count:,} parameters), {how}")
    print(f"{'CPU ms':22}" + "".join(f"{name:>30}" for name in medians) + f"{'ratio':>8}")
    parts = [part for part in ours if part != "between"]
    for part in parts:
        print(f"{part:22}{1e3 * ours[part]:30.1f}{1e3 * theirs[part]:30.1f}{theirs[part] / ours[part]:8.2f}")
    whole = [sum(each[part] for part in parts) for each in (ours, theirs)]
    print(f"{'whole step':22}{1e3 * whole[0]:30.1f}{1e3 * whole[1]:30.1f}{whole[1] / whole[0]:8.2f}")
    print(f"{'frames per second':22}{frames / whole[0]:30,.0f}{frames / whole[1]:30,.0f}{whole[1] / whole[0]:8.2f}")


if __name__ == "__main__":
    main()
