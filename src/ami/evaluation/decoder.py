"""Latents as pictures, for people only: trained on detached latents, it teaches the model nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from ami.data.episodes import Store
from ami.types import Latent, WorldModel

_SIDE = 8  # pieces on a side of the picture


class PictureDecoder(nn.Module):
    """A latent to an 8 x 8 grid of pieces, and each piece to pixels by the same small network.

    What it draws is added to a mean picture, so it need not learn the walls, only what differs from them.
    """

    def __init__(
        self, latent: int, mean: Float[Tensor, "height width 3"], generator: torch.Generator, inner: int = 32
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.piece = len(mean) // _SIDE
        self.grid = nn.Sequential(nn.Linear(latent, 256), nn.ReLU(), nn.Linear(256, _SIDE**2 * inner), nn.ReLU())
        self.pixels = nn.Sequential(nn.Linear(inner, 64), nn.ReLU(), nn.Linear(64, 3 * self.piece**2))
        for weight in self.parameters():
            scale = (2 / weight.shape[1]) ** 0.5 if weight.ndim > 1 else 0.0
            weight.data = torch.randn(weight.shape, generator=generator) * scale

    def forward(self, values: Float[Tensor, "n latent"]) -> Float[Tensor, "n height width 3"]:
        """Colours in the mean picture's unit."""
        pieces = self.pixels(self.grid(values).view(len(values), _SIDE, _SIDE, -1))
        split = pieces.view(len(values), _SIDE, _SIDE, self.piece, self.piece, 3)
        drawn = split.permute(0, 1, 3, 2, 4, 5).reshape(len(values), _SIDE * self.piece, _SIDE * self.piece, 3)
        return self.mean + drawn


def fit_decoder(
    model: WorldModel, store: Store, *, steps: int = 600, batch: int = 64, seed: int = 0
) -> Callable[[Latent], UInt8[np.ndarray, "batch time height width 3"]]:
    """Learn to draw what ``model`` perceives in a store; the answer turns latents into pictures.

    Pixels count by how far they are from the mean picture: a small moving thing is what people look for, and hardly
    matters in a plain mean of errors.
    """
    if model.training:
        raise ValueError("the model is in training mode and would learn from what it is shown; call model.eval() first")
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    windows = store.windows(1)
    index = windows[rng.permutation(len(windows))[:4096]]
    latents, pictures = [], []
    with torch.no_grad():
        for part in np.array_split(index, max(len(index) // 256, 1)):
            clip = store.clips(part, 1)
            assert clip.video is not None
            latents.append(model.encode(clip).values.flatten(1))
            pictures.append(clip.video[:, 0, -1].permute(0, 2, 3, 1))
    known, shown = torch.cat(latents), torch.cat(pictures)
    mean = shown.float().mean(0)
    # Cut once, not at each step: where a picture is far from the mean one.
    telling = torch.cat([(part - mean).abs().amax(-1, keepdim=True) > 24 for part in shown.split(256)])
    decoder = PictureDecoder(known.shape[1], (mean - 127.5) / 64, generator)
    optimiser = torch.optim.Adam(decoder.parameters(), 2e-3)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        rows = torch.randint(len(known), (batch,), generator=generator)
        wanted = (shown[rows] - 127.5) / 64
        error = functional.smooth_l1_loss(decoder(known[rows]), wanted, reduction="none")
        loss = (error * (1 + 20 * telling[rows])).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    @torch.no_grad()
    def decode(latent: Latent) -> UInt8[np.ndarray, "batch time height width 3"]:
        drawn = decoder(latent.values.flatten(2).flatten(0, 1)) * 64 + 127.5
        return drawn.clamp(0, 255).round().byte().unflatten(0, latent.values.shape[:2]).numpy(force=True)

    return decode
