"""Probes: what can be read out of frozen features, by the simplest means that can read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ami.nn.transformer import Block
from ami.training.loop import drawn_from

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Ridge:
    """A linear map from standardised features to quantities."""

    mean: Float[Tensor, "feature"]
    scale: Float[Tensor, "feature"]
    weight: Float[Tensor, "feature quantity"]
    constant: Float[Tensor, "quantity"]

    def __call__(self, features: Float[Tensor, "n feature"]) -> Float[Tensor, "n quantity"]:
        return ((features.double() - self.mean) / self.scale) @ self.weight + self.constant


def fit_ridges(
    features: Float[Tensor, "n feature"],
    truth: Float[Tensor, "n quantity"],
    penalties: Sequence[float],
    *,
    centred: bool = True,
) -> list[Ridge]:
    """Ridge regression in closed form, one for each penalty: relative to the mean square of the standardised features.

    It takes whichever of the two forms is smaller (Saunders et al. 1998). All share the products of all rows (or
    features) with one another, which is nearly all of the work. Without ``centred`` nothing is subtracted, there is no
    constant and features keep their proportions: for those that change
    their sign with the answer.
    """
    x, y = features.double(), truth.double()
    zero = torch.zeros_like
    mean = x.mean(0) if centred else zero(x[0])
    scale = (x - mean).square().mean(0).sqrt()
    if not centred:
        scale = scale.square().mean().sqrt().clamp_min(1e-12).expand(len(scale))
    scale = torch.where(scale > 1e-6 * scale.max().clamp_min(1e-12), scale, torch.inf)  # what never moves says nothing
    constant = y.mean(0) if centred else zero(y[0])
    x, y = (x - mean) / scale, y - constant
    tolls = [penalty * max(int(scale.isfinite().sum()), 1) for penalty in penalties]
    few = x.shape[1] <= x.shape[0]
    products, wanted = (x.T @ x, x.T @ y) if few else (x @ x.T, y)
    unit = torch.eye(len(products)).to(x)
    solved = [torch.linalg.solve(products + toll * unit, wanted) for toll in tolls]
    return [Ridge(mean, scale, each if few else x.T @ each, constant) for each in solved]


def best_ridge(
    features: Float[Tensor, "n feature"],
    truth: Float[Tensor, "n quantity"],
    held: slice | Tensor,
    kept: slice | Tensor,
    *,
    centred: bool = True,
) -> Ridge:
    """For each quantity the penalty that errs least on rows ``held`` when fitted on rows ``kept``; then both teach."""
    tried = fit_ridges(features[kept], truth[kept], PENALTIES, centred=centred)
    errors = [(probe(features[held]) - truth[held]).square().mean(0) for probe in tried]
    chosen = torch.stack(errors).argmin(0).tolist()
    best = sorted(set(chosen))
    probes = dict(zip(best, fit_ridges(features, truth, [PENALTIES[k] for k in best], centred=centred), strict=True))
    any_probe = probes[best[0]]
    weight = torch.stack([probes[k].weight[:, column] for column, k in enumerate(chosen)], 1)
    return Ridge(any_probe.mean, any_probe.scale, weight, any_probe.constant)


@dataclass(frozen=True)
class Principal:
    """The directions in which features vary most, each scaled to unit variance over the whole of them."""

    mean: Float[Tensor, "feature"]
    directions: Float[Tensor, "feature component"]

    def __call__(self, features: Float[Tensor, "... feature"]) -> Float[Tensor, "... component"]:
        return (features.double() - self.mean) @ self.directions


def fit_principal(features: Float[Tensor, "n feature"], components: int) -> Principal:
    """Principal components; the first one's deviation is 1 and the others keep their proportion to it."""
    x = features.double()
    mean = x.mean(0)
    _, deviation, directions = torch.linalg.svd(x - mean, full_matrices=False)
    scale = (deviation[0] / len(x) ** 0.5).clamp_min(1e-12)
    return Principal(mean, directions[:components].T / scale)


class Attentive(nn.Module):
    """Learned queries look at all tokens of a clip; a linear layer answers from what each one saw.

    Source: the attentive probe of V-JEPA (Bardes et al. 2024, section 4), without an MLP; with ``blocks`` tokens hear
    one another before (as the probe of V-JEPA 2 has it, Assran et al. 2025). Tokens are standardised, and each has a
    learned place, so that a token's meaning may depend on where and when it is.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        tokens: Float[Tensor, "n token dim"],
        answers: int,
        *,
        width: int = 64,
        queries: int = 4,
        blocks: int = 0,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", tokens.mean((0, 1)))
        self.register_buffer("scale", tokens.std((0, 1)).clamp_min(1e-6))
        self.place = nn.Parameter(torch.zeros(tokens.shape[1], width))
        self.enter = nn.Linear(tokens.shape[2], width)
        self.blocks = nn.Sequential(*(Block(width, width // 16) for _ in range(blocks)))
        self.value = nn.Linear(width, width)
        self.query = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.answer = nn.Linear(queries * width, answers)

    def forward(self, tokens: Float[Tensor, "n token dim"]) -> Float[Tensor, "n answer"]:
        """One answer a clip."""
        seen = self.blocks(functional.gelu(self.enter((tokens - self.mean) / self.scale) + self.place))
        look = (self.query @ seen.mT * seen.shape[-1] ** -0.5).softmax(-1)
        return self.answer((look @ self.value(seen)).flatten(1))


def fit_attentive(
    tokens: Float[Tensor, "n token dim"],
    truth: Float[Tensor, "n quantity"],
    seed: int,
    *,
    steps: int = 800,
    batch: int = 64,
    rate: float = 3e-3,
    blocks: int = 0,
) -> Attentive:
    """Train one by mean squared error on standardised ``truth``; its last layer then answers in their own unit."""
    with drawn_from(seed):
        probe = Attentive(tokens, truth.shape[1], blocks=blocks).to(tokens.device)
    fit(probe, tokens, truth, seed, steps=steps, batch=batch, rate=rate)
    return probe.eval()


def fit(
    probe: nn.Module, inputs: Tensor, truth: Tensor, seed: int, *, steps: int, batch: int, rate: float
) -> Sequence[float]:
    """Teach ``probe``, which ends in a linear layer called ``answer``, to say ``truth``; returns the losses.

    The learning rate rises for a tenth of the steps and falls to nothing along a cosine.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, scale = truth.mean(0), truth.std(0).clamp_min(1e-6)
    wanted = (truth - mean) / scale
    optimiser = torch.optim.AdamW(probe.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    probe.train()
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(inputs), (batch,), generator=generator)
        loss = functional.mse_loss(probe(inputs[rows]), wanted[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    last = probe.get_submodule("answer")
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(scale[:, None])
        last.bias.mul_(scale).add_(mean)
    return losses
