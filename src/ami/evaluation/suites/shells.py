"""Which cup is the ball under? A shell game, answered by surprise alone: no probe, no label."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.statistics import wilson
from ami.types import Belief, Clip, Interval, Latent, Result, WorldModel
from ami.worlds import cups

SWAPS = (0, 1, 2, 3, 5, 10)
_WINDOW = 3  # steps that the twin without a memory sees
_APART = 3_000_017  # from the seeds of training
_TOGETHER = 32
_CHANCE = Interval(1 / cups.CUPS, 1 / cups.CUPS, 1 / cups.CUPS)


@dataclass(frozen=True)
class ShellGame:
    """A ball is covered and its cup changes places so many times: of three ways to go on, which surprises least?"""

    swaps: int
    future: int = 3  # steps of lifting all cups that are judged

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"recall/shell-game/swaps-{self.swaps}"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            "shell-game: a ball is shown and covered by one of three cups alike, two of which change places each time. "
            f"Then all are lifted, which is done as an action; of three films of {self.future} steps that show the "
            "ball under one cup each, the answer is that of least energy, the mean over its steps.",
            f"'window' is the same model with a belief of the last {_WINDOW} steps only, 'shuffled' with the recurrent "
            "state of another film; both must be at chance, a third, or the question needs no memory.",
        )

    def able(self, model: WorldModel) -> None:
        """``ValueError`` for a model that knows no cups."""
        if cups.EMBODIMENT.name not in model.embodiments:
            raise ValueError(
                f"this model does not know '{cups.EMBODIMENT.name}' but {', '.join(sorted(model.embodiments))}; "
                "train one on what `ami collect cups` records"
            )

    @torch.no_grad()
    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask about ``n`` fresh games; the model has to know the embodiment ``cups``."""
        self.able(model)
        began = time.perf_counter()
        right: dict[str, list[Bool[Tensor, "games"]]] = {}
        for first in range(0, n, _TOGETHER):
            asking.tell(f"shell game of {self.swaps} swaps", first, n)
            rng = np.random.default_rng([_APART + asking.seed, self.swaps, first])
            games = cups.games(min(_TOGETHER, n - first), self.swaps, rng, self.future)
            found = dict(answers(model, games))
            if asking.untrained is not None:
                found |= {"untrained": answers(asking.untrained, games)["model"]}
            for who, answer in found.items():
                right.setdefault(who, []).append(answer == torch.from_numpy(games.answer))
        asking.tell(f"shell game of {self.swaps} swaps", n, n)
        all_of = {who: torch.cat(parts) for who, parts in right.items()}
        counted = {who: wilson(int(each.sum()), len(each)) for who, each in all_of.items()}
        own = counted.pop("model")
        result = Result(
            self.name,
            "accuracy",
            own.value,
            own.low,
            own.high,
            n,
            "share",
            (asking.seed,),
            "Wilson 95 %",
            {**counted, "chance": _CHANCE},
            seconds=time.perf_counter() - began,
            details={"episodes": [{"right": each} for each in all_of["model"].tolist()]},
        )
        return Answer((result,))


def answers(model: WorldModel, games: cups.Games) -> Mapping[str, Tensor]:
    """The place that surprises least in each game, from the left: the model's answer and those of its two twins."""
    done = torch.from_numpy(games.done).float()
    past = _clip(games.past, 0)
    seen, gaps = model.encode(past), past.steps - 1
    futures = [model.encode(_clip(each, past.steps)) for each in games.futures]
    belief = model.believe(None, seen, done[:, :gaps], past.embodiment)
    first = max(past.steps - _WINDOW, 0)
    window = model.believe(None, seen.between(first, past.steps), done[:, first:gaps], past.embodiment)
    held = {"model": belief, "window": window}
    if belief.recurrent is not None and len(belief) > 1:  # a game alone has no other's memory
        held["shuffled"] = replace(belief, recurrent=belief.recurrent.roll(1, 0))
    return {who: _least(model, each, done[:, gaps:], futures) for who, each in held.items()}


def _least(model: WorldModel, belief: Belief, done: Float[Tensor, "games future 1"], futures: list[Latent]) -> Tensor:
    energies = torch.stack([model.energy(belief, done, each).mean(1) for each in futures], 1)
    return energies.argmin(1)


def _clip(video: UInt8[np.ndarray, "films frames 64 64 3"], first: int) -> Clip:
    pictures = torch.from_numpy(video).movedim(-1, 2)[:, :, None].contiguous()
    times = (first + torch.arange(video.shape[1])) * cups.EMBODIMENT.step_seconds
    return Clip(cups.EMBODIMENT.name, times.expand(len(video), -1), pictures)


ASKED = tuple((ShellGame(swaps), 200) for swaps in SWAPS)
SUITES = (Suite("shell-game", ASKED),)
