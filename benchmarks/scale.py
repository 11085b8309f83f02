"""Times a training step of V-JEPA beside what the dry run (``ami train video --dry-run``) reckons for it.

    python benchmarks/scale.py [--size small] [--batch 2] [--rounds 3] [--device auto]

The model, the masks and the objective are those of that size; the pictures are noise, for loading is not asked about.
*Utilisation* is the operations that the dry run counts, over those that a large matrix product in bfloat16 reaches here
at the time; the dry run takes 0.4 of a GPU's data sheet. Memory is the most that PyTorch held, and what was reckoned.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from ami import parallel
from ami.models.vjepa import VJEPA, sized
from ami.nn.precision import fast_precision
from ami.objectives.masked import Masked, MaskedSettings
from ami.recipes.scale import FPS, schedule, work
from ami.training.estimate import Cluster, estimate
from ami.training.optim import Optimisation
from ami.types import Clip, Embodiment

FILM = Embodiment("film", 2 / FPS)


def seconds(act: Callable[[], object], device: torch.device) -> float:
    """By the clock, until the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak(device: torch.device) -> float:
    """The most operations a second of a large matrix product in bfloat16."""
    side = 8192 if device.type == "cuda" else 2048
    one, other = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    return 2 * side**3 / min(seconds(lambda: one @ other, device) for _ in range(8))


def main() -> None:
    """Print a row for the size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    device = parallel.device(asked.device)
    torch.manual_seed(0)
    model = VJEPA(sized(asked.size, {FILM.name: FILM})).to(device)
    config = model.config
    precision = fast_precision(device.type)
    objective = Masked(model, MaskedSettings(precision="bf16" if precision == "bf16" else "fp32")).to(device)
    optimiser = Optimisation().build(p for p in [*model.parameters(), *objective.parameters()] if p.requires_grad)
    shape = (asked.batch, config.slots, config.tubelet, 3, config.picture, config.picture)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    times = torch.arange(config.slots, device=device).expand(asked.batch, -1) * FILM.step_seconds
    clip, generator = Clip(FILM.name, times, video), torch.Generator().manual_seed(0)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        sum(objective.losses(model, clip, generator).values(), torch.zeros((), device=device)).backward()
        optimiser.step()
        objective.after_step(model)

    took = [seconds(step, device) for _ in range(asked.rounds + 2)][2:]
    encoder = sum(p.numel() for p in model.encoder.parameters())
    trained = encoder + sum(p.numel() for p in model.predictor.parameters())
    once, plan = work(config, model), schedule(config.width, encoder)
    flops, best = asked.batch * once.flops, peak(device)
    reckoned = estimate(once, trained, encoder, batch=asked.batch, steps=plan.steps, cluster=Cluster.named("1xH100"))
    usual, told = median(took), f"{asked.batch} clips of {once.tokens} tokens, {precision}, {device}"
    print(f"{asked.size} ({trained / 1e6:.0f} M parameters), {told}")
    print(f"  {usual:.3f} s a step ({min(took):.3f} to {max(took):.3f}), {asked.batch / usual:.1f} clips a second")
    print(f"  {flops / usual:.3g} operations a second, {flops / usual / best:.2f} of the {best:.3g} of a bare product")
    if device.type == "cuda":
        held = torch.cuda.max_memory_allocated() / 2**30
        print(f"  memory {held:.1f} GiB; reckoned {reckoned.memory_bytes / 2**30:.1f}")


if __name__ == "__main__":
    main()
