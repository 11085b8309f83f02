"""Does a model know what a real robot's action will change? Asked of held-out recordings."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.evaluation.statistics import bootstrap_ratio, share_by_cluster
from ami.types import Clip, Interval, Latent, Result, WorldModel


@dataclass(frozen=True)
class NextLatent:
    """Predict the next latent of held-out episodes, one step ahead, from the belief of the true past.

    Four metrics over all transitions; distances are L2 between latents, and intervals redraw whole episodes:

    - ``rank_vs_copy``: the share of transitions where the prediction is nearer to the true next latent than the last
      latent is. 50 % means: as often worse as better than saying that nothing changes; a model that always copies
      gets exactly 50 %, for a tie counts as half.
    - ``rank_vs_shuffled``: the share where it is nearer than the prediction made with the same past but the action of
      another episode at the same step, averaged over several other episodes. 50 % means: the model cannot tell which
      action was done; one that ignores actions gets exactly 50 %.
    - ``error_vs_copy``, ``error_vs_shuffled``: the mean distance over that of the rival; 1 is no better, 0 is perfect.

    A latent that never changes cannot win any of them.
    """

    name: str = "bridge/next-latent"
    shuffles: int = 8  # other episodes whose actions are tried, at most

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            "Every transition of held-out episodes is predicted one step ahead from all that came before it.",
            "rank_vs_copy: how often the prediction is nearer to the true next latent than the last latent is.",
            "rank_vs_shuffled: how often it is nearer than with the action of another episode; a tie counts as half.",
        )

    def run(
        self, model: WorldModel, episodes: Clip, *, seed: int = 0, untrained: WorldModel | None = None
    ) -> list[Result]:
        """Four results from a clip with one whole episode in each row; ``untrained`` is put beside them.

        ``ValueError`` where there are no actions, fewer than two episodes, or fewer than two steps.
        """
        if episodes.actions is None or len(episodes) < 2 or episodes.steps < 2:
            raise ValueError(
                f"{self.name} needs two or more episodes of two or more steps with actions, but {len(episodes)} of "
                f"{episodes.steps} {'without actions ' if episodes.actions is None else ''}came; hold out more"
            )
        began = time.perf_counter()
        intervals, calls = self._intervals(model, episodes, seed)
        seconds = time.perf_counter() - began
        fresh = self._intervals(untrained, episodes, seed)[0] if untrained is not None else {}
        results = []
        for metric, interval in intervals.items():
            rank, rival = metric.startswith("rank"), metric.split("_vs_")[1]
            even = 0.5 if rank else 1.0
            baselines = {"copy-last" if rival == "copy" else "any-action": Interval(even, even, even)}
            if metric in fresh:
                baselines["untrained"] = fresh[metric]
            results.append(
                Result(
                    benchmark=self.name,
                    metric=metric,
                    value=interval.value,
                    low=interval.low,
                    high=interval.high,
                    n=len(episodes) * (episodes.steps - 1),
                    unit="share" if rank else "ratio",
                    seeds=(seed,),
                    interval=f"bootstrap over {len(episodes)} episodes, 95 %",
                    baselines=baselines,
                    seconds=seconds,
                    model_calls=calls,
                )
            )
        return results

    @torch.no_grad()
    def _intervals(self, model: WorldModel, episodes: Clip, seed: int) -> tuple[dict[str, Interval], int]:
        assert episodes.actions is not None
        rng = np.random.default_rng(seed)
        order = torch.from_numpy(rng.permutation(len(episodes)))
        latents, actions = model.encode(episodes), episodes.actions
        shifts = range(1, min(len(episodes), self.shuffles + 1))
        own, copied, others = [], [], []
        for step in range(1, episodes.steps):
            past = Latent(latents.values[:, :step], latents.times[:, :step])
            belief = model.believe(None, past, actions[:, : step - 1], episodes.embodiment)
            truth = latents.values[:, step]

            def error(done: Tensor, belief=belief, truth=truth) -> Float[Tensor, "episodes"]:
                return _distance(model.predict(belief, done[:, None], 1).values[:, 0], truth)

            done = actions[:, step - 1]
            own.append(error(done))
            copied.append(_distance(latents.values[:, step - 1], truth))
            # Around a random circle of the episodes, each is given the action of the one some places further on.
            rivals = [torch.empty_like(order).scatter_(0, order, order.roll(-shift)) for shift in shifts]
            others.append(torch.stack([error(done[rival]) for rival in rivals], -1))
        mine, copy, shuffled = (torch.stack(each, 1).double().numpy(force=True) for each in (own, copied, others))
        episode = np.arange(len(episodes)).repeat(episodes.steps - 1)
        found = {}
        for rival, theirs in (("copy", copy[..., None]), ("shuffled", shuffled)):
            wins = ((mine[..., None] < theirs) + 0.5 * (mine[..., None] == theirs)).mean(-1)
            found[f"rank_vs_{rival}"] = share_by_cluster(wins.ravel(), episode, rng)
            found[f"error_vs_{rival}"] = bootstrap_ratio(
                mine.ravel(), theirs.mean(-1).ravel(), rng, clusters=episode, method="percentile"
            )
        return found, (1 + len(shifts)) * len(episode)


def _distance(a: Float[Tensor, "n tokens dim"], b: Float[Tensor, "n tokens dim"]) -> Float[Tensor, "n"]:
    return (a - b).flatten(1).norm(dim=1)
