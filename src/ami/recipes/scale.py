"""What it takes to train a V-JEPA of each size on the published schedule."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ami.models.vjepa import VJEPA, VJEPAConfig, sized
from ami.nn.tokenizers import PatchStem
from ami.training.estimate import UTILISATION, Cluster, Masked, Tower, estimate
from ami.types import Embodiment

FPS = 4.0
# Rectangles through the whole clip: how many, and the share of the picture that each covers. Source: V-JEPA, 3.2.
MASKS = ((8, 0.15), (2, 0.7))
_ASPECT = (0.75, 1.5)  # their least and greatest height over width
# The width and parameters of the smallest encoder that V-JEPA 2 was trained at, to which its numbers belong.
_LARGE_WIDTH, _LARGE = 1024, 303e6


@dataclass(frozen=True)
class Schedule:
    """How long a size learns, and how fast."""

    batch: int  # clips in a step, on all GPUs together
    steps: int
    rate: float  # at its highest
    warmup: int  # steps
    weight_decay: float = 0.04
    momentum: float = 0.99925  # of the teacher


def schedule(width: int, parameters: int, steps: int | None = None) -> Schedule:
    """By the width and parameters of the encoder.

    Large, huge and giant are trained as V-JEPA 2 was (Assran et al. 2025, appendix A; its published configuration): 800
    epochs of 300 steps, the first 40 of them to warm up, 3,072 clips of 16 frames at 4 a second in 256 px, AdamW at
    5.25e-4. Its last 12,000 steps, on 64 frames, are not counted.

    Below them, nobody has tried, and rules of others stand in:
    - clips seen grow as the parameters do (Hoffmann et al. 2022): a share p of ViT-L sees p x 240,000 x 3,072;
    - the batch grows with the root of p, to the nearest power of two, so that batch and steps shrink alike;
    - AdamW's rate follows the root of the batch (Malladi et al. 2022) and falls as the width grows (Yang et al. 2022).
    """
    share = min(parameters / _LARGE, 1.0)
    batch = 3072 if share > 0.9 else 2 ** round(math.log2(3072 * share**0.5))
    wanted = steps or round(240_000 * 3072 * share / batch)
    return Schedule(batch, wanted, rate(width, batch), warmup=round(wanted / 20))


def rate(width: int, batch: int) -> float:
    """AdamW's, at its highest, for an encoder of that width and so many clips in a step: as :func:`schedule` says."""
    return 5.25e-4 * (batch / 3072) ** 0.5 * max(_LARGE_WIDTH / width, 1.0)


def work(config: VJEPAConfig, model: VJEPA) -> Masked:
    """What a step computes for one clip; ``model`` may lie on the meta device."""
    side, stem = config.picture // config.patch, model.encoder.stem
    tokens = config.slots * side**2
    pixels = 3 * config.tubelet * config.patch**2
    if isinstance(stem, PatchStem):
        products = 16 * stem.piece.weight.numel(), 4 * stem.quarter.weight.numel() + stem.token.weight.numel()
    else:
        products = stem.project.weight.numel(), 0
    seen = [config.slots * visible(*mask, side) for mask in MASKS]
    return Masked(
        encoder=Tower(config.width, config.depth, int(config.width * config.widen)),
        predictor=Tower(
            config.predictor_width, config.predictor_depth, int(config.predictor_width * config.predictor_widen)
        ),
        stem=products,
        pixels=pixels,
        tokens=tokens,
        masks=tuple((each, tokens - each) for each in seen),
        anew=config.anew,
    )


def visible(count: int, share: float, side: int) -> int:
    """Patches that ``count`` rectangles leave to be seen of ``side`` x ``side``, on average over places and aspects.

    A patch is seen when no rectangle covers it: they are placed alike and independently.
    """
    seen, shapes = 0.0, 16
    for shape in range(shapes):
        aspect = _ASPECT[0] + (_ASPECT[1] - _ASPECT[0]) * (shape + 0.5) / shapes
        height, width = (min(max(round((share * side**2 * each) ** 0.5), 1), side) for each in (aspect, 1 / aspect))
        down, across = _covered(height, side), _covered(width, side)
        seen += float((1 - down[:, None] * across).pow(count).sum()) / shapes
    return max(round(seen), 1)


def _covered(length: int, side: int) -> torch.Tensor:
    """How likely a stretch of ``length``, put down anywhere on ``side`` places, covers each of them."""
    starts = torch.arange(side - length + 1, dtype=torch.float64)
    places = torch.arange(side)[:, None]
    return ((places >= starts) & (places < starts + length)).double().mean(1)


def preview(size: str, cluster: Cluster, steps: int | None = None, picture: int | None = None) -> dict[str, Any]:
    """All that is known of a training before it begins; nothing is allocated but the model's shapes."""
    config = sized(size, {"film": Embodiment("film", 2 / FPS)}, picture=picture)
    with torch.device("meta"):
        model = VJEPA(config)
    encoder, predictor = (sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.predictor))
    plan, once = schedule(config.width, encoder, steps), work(config, model)
    takes = estimate(once, encoder + predictor, encoder, batch=plan.batch, steps=plan.steps, cluster=cluster)
    return {
        "size": size,
        "objective": "masked prediction of a teacher's tokens (V-JEPA)",
        "parameters": {"encoder": encoder, "predictor": predictor, "teacher": encoder},
        "clip": {
            "frames": config.slots * config.tubelet,
            "fps": FPS,
            "picture": config.picture,
            "tokens": once.tokens,
            "masks": [{"visible": seen, "hidden": hidden} for seen, hidden in once.masks],
        },
        "schedule": asdict(plan),
        "cluster": {"gpus": cluster.gpus, "kind": cluster.kind, "peak": cluster.of.peak, "utilisation": UTILISATION},
        "takes": asdict(takes),
    }
