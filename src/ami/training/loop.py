"""The training loop, top to bottom. It has never heard of JEPA."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ami import parallel
from ami.data.loader import Loader
from ami.training.gauges import gauge
from ami.training.optim import Optimisation
from ami.types import Clip, Objective, WorldModel


@dataclass(frozen=True)
class Stage:
    """One stretch of training: what is taught, with what, for how long.

    ``objective`` and ``loader`` are built when the stage begins, from the model as it then is: a later stage may need
    what an earlier one has learned.
    """

    name: str
    steps: int
    objective: Callable[[Any], Objective]
    loader: Callable[[Any], Loader]
    optimisation: Optimisation = field(default_factory=Optimisation)
    weights: Mapping[str, float] = field(default_factory=dict)  # of an embodiment's losses, where not 1
    frozen: tuple[str, ...] = ()  # parts of the model that this stage leaves as they are
    shared: type[nn.Module] | None = None  # blocks whose weights several processes share out; None: each holds all
    gauge_every: int = 100
    gauge_clips: tuple[Clip, ...] = ()  # held-out experience, one clip for each embodiment


@dataclass
class Progress:
    """Where a stage stands: all that must be saved for it to go on bit for bit."""

    model: WorldModel
    objective: Objective
    optimiser: torch.optim.Optimizer
    loader: Loader
    step: int = 0

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Of model and objective, by name."""
        return dict(nn.ModuleDict({"model": self.model, "objective": self.objective}).named_parameters())

    def state(self) -> dict[str, Any]:
        """As nested plain values and tensors; of shared tensors, what this process holds.

        What the optimiser remembers goes by the names of parameters, whose order differs where they are shared.
        """
        remembered = self.optimiser.state
        return {
            "model": dict(self.model.state_dict()),
            "objective": dict(self.objective.state_dict()),
            "optimiser": {name: dict(remembered[p]) for name, p in self.parameters.items() if p in remembered},
            "step": self.step,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what :meth:`state` said, read by :func:`ami.models.snapshot.open_state`."""
        for module, stored in ((self.model, state["model"]), (self.objective, state["objective"])):
            held = module.state_dict()
            module.load_state_dict({name: value.like(held.get(name)) for name, value in stored.items()})
        known = self.parameters
        for name, stored in state["optimiser"].items():
            parameter = known[name]  # what is remembered lies where it lies; the count of steps is a number
            self.optimiser.state[parameter] = {
                key: value.like(parameter if value.shape else None).to(parameter.device)
                for key, value in stored.items()
            }
        self.step = state["step"]


def begin(model: WorldModel, stage: Stage, seed: int) -> Progress:
    """A stage at its step 0, where the model lies; its objective's own weights are drawn from ``seed``."""
    model.requires_grad_(True)
    for name in stage.frozen:
        model.get_submodule(name).requires_grad_(False)
    with drawn_from(seed):
        objective = stage.objective(model).to(parallel.device_of(model))
    both = nn.ModuleList([model, objective])
    if stage.shared:
        parallel.share_out(both, stage.shared)
    taught = [p for p in both.parameters() if p.requires_grad]
    return Progress(model, objective, stage.optimisation.build(taught), stage.loader(model))


def fit(progress: Progress, stage: Stage, seed: int) -> Iterator[dict[str, float]]:
    """Train from where ``progress`` stands to the stage's end; after every step yield what was measured.

    Everything random at a step is drawn from (seed, step), so a run that was stopped goes on as if it had not been.
    ``RuntimeError`` when a loss or its gradient is no longer a number: the last saved state is then the last good one.
    """
    model, objective, optimiser = progress.model, progress.objective, progress.optimiser
    both = nn.ModuleList([model, objective])
    taught = [p for group in optimiser.param_groups for p in group["params"]]
    device = parallel.device_of(model)
    for clips in progress.loader.prefetch(progress.step, stage.steps, parallel.rank(), parallel.size()):
        began = time.perf_counter()
        _set_training(model, stage.frozen)
        generator = torch.Generator().manual_seed(_key(seed, progress.step))
        losses: dict[str, Tensor] = {}
        total = torch.zeros((), device=device)
        for clip in (each.to(device) for each in clips):
            for name, loss in objective.losses(model, clip, generator).items():
                total = total + stage.weights.get(clip.embodiment, 1.0) * loss
                losses[f"{clip.embodiment}/{name}"] = loss.detach()
        everywhere = parallel.mean(torch.stack([total.detach(), *losses.values()])).tolist()
        measured = dict(zip(losses, everywhere[1:], strict=True))
        if not math.isfinite(everywhere[0]):
            bad = [name for name, value in measured.items() if not math.isfinite(value)]
            raise RuntimeError(f"step {progress.step} of {stage.name}: {', '.join(bad) or 'the loss'} is not a number")
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        parallel.average_gradients(both)
        measured["gradient"] = float(parallel.clip_gradients(taught, stage.optimisation.clip))
        if not math.isfinite(measured["gradient"]):
            raise RuntimeError(f"step {progress.step} of {stage.name}: the gradient is not a number")
        for group in optimiser.param_groups:
            group["lr"] = stage.optimisation.rate_at(progress.step, stage.steps)
        optimiser.step()
        objective.after_step(model)
        progress.step += 1
        frames = sum(clip.video.shape[:3].numel() for clip in clips if clip.video is not None)
        measured["frames_per_second"] = frames / (time.perf_counter() - began)
        if progress.step % stage.gauge_every == 0 or progress.step == stage.steps:
            measured |= _gauges(model, stage)
            measured |= {f"gauge/{name}": value for name, value in objective.gauges(model).items()}
        yield measured
    model.eval()


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Inside, new layers draw their first weights from ``seed``; outside, nobody's random numbers have been spent."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


def _gauges(model: WorldModel, stage: Stage) -> dict[str, float]:
    return {
        f"{clip.embodiment}/gauge/{name}": value
        for clip in stage.gauge_clips
        for name, value in gauge(model, clip).items()
    }


def _set_training(model: WorldModel, frozen: tuple[str, ...]) -> None:
    """What is frozen stays in evaluation mode: its running statistics must not drift either."""
    model.train()
    for name in frozen:
        model.get_submodule(name).eval()


def _key(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)
