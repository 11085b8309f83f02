"""From the pictures of one step to a few tokens that say what is there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ami.nn.norm import EmbodimentNorm
from ami.nn.tokenizers import PATCH, PatchStem
from ami.nn.transformer import Block
from ami.types import Embodiment


class ProprioDoor(nn.Module):
    """One embodiment's sense of its own body, normalised and projected; for one without, zero."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], out: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)
        self.project = nn.Linear(len(mean), out, bias=False) if mean else None

    def forward(self, felt: Float[Tensor, "steps proprio"] | None) -> Float[Tensor, "steps out"] | float:
        """``ValueError`` where a body that feels comes without what it felt."""
        if self.project is None:
            return 0.0
        if felt is None or felt.shape[-1] != len(self.mean):
            came = "none" if felt is None else f"{felt.shape[-1]}"
            raise ValueError(f"this model was trained with {len(self.mean)} numbers of proprioception; {came} came")
        return self.project((felt - self.mean) / self.std)


class StepEncoder(nn.Module):
    """Patches to tokens, blocks among them, and one linear read-out of the whole grid.

    The read-out sees every patch's place, which a mean over patches would lose. It belongs to the embodiment, because
    what matters in a kitchen is not what matters in a maze: with one for all, fewer doors were reached. With no blocks
    (the baby) the only products are those of the stem and the read-out.
    """

    def __init__(
        self,
        *,
        picture: int,
        tubelet: int,
        widths: tuple[int, int, int],
        blocks: int,
        out: int,
        embodiments: Mapping[str, Embodiment],
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.picture, self.fast = picture, precision == "bf16"
        self.stem = PatchStem(widths, tubelet)
        width, grid = widths[-1], (picture // PATCH) ** 2
        self.place = nn.Parameter(torch.randn(grid, width) * 0.02) if blocks else None
        self.blocks = nn.Sequential(*(Block(width, max(width // 64, 1)) for _ in range(blocks)))
        self.read = nn.ModuleDict({name: nn.Linear(grid * width, out, bias=False) for name in embodiments})
        self.felt = nn.ModuleDict(
            {name: ProprioDoor(body.proprio_mean, body.proprio_std, out) for name, body in embodiments.items()}
        )
        self.norm = EmbodimentNorm(tuple(embodiments), out)

    def forward(
        self,
        video: UInt8[Tensor, "steps tubelet 3 height width"],
        proprio: Float[Tensor, "steps proprio"] | None,
        embodiment: str,
    ) -> Float[Tensor, "steps out"]:
        """``ValueError`` where the pictures are not of the size that the model was built for."""
        if video.shape[-2:] != (self.picture, self.picture):
            height, width = video.shape[-2:]
            raise ValueError(
                f"pictures are {height} x {width} px; this model was built for {self.picture} x {self.picture}"
            )
        with torch.autocast(video.device.type, torch.bfloat16, enabled=self.fast and self.training):
            tokens = self.stem(video)
            if self.place is not None:
                tokens = self.blocks(tokens + self.place)
            read = self.read[embodiment](tokens.flatten(1))
        return self.norm(read.float() + self.felt[embodiment](proprio), embodiment)
