"""The public conformance test: does a model keep the promises that planners, agents and benchmarks rely on?

Run it on a model of your own with a clip of real experience: ``check(model, clip)``. Silence means that it conforms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ami.models.answers import ContractError, chosen, leaves, parts, same, sound, unchanged
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

_T = TypeVar("_T")


def check(model: WorldModel, clip: Clip, *, actions_matter: bool = True, differentiable: bool = True) -> None:
    """Raise :class:`ContractError` with the first promise that ``model`` breaks; return nothing if it keeps them all.

    ``clip`` is real experience of one of its embodiments, at least 2 rows that differ and 4 steps. The model is
    checked in evaluation mode and is left as it was. Pass ``actions_matter=False`` for a model that ignores actions by
    design (copy-last) or that is new and whose last layer starts at zero, and ``differentiable=False`` for one without
    gradients to its actions (a simulator). Raises a plain ``ValueError`` where the clip is unfit for the check.
    """
    embodiment = _embodiment(model, clip)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            run = _Run(model, clip, embodiment)
            for promise in PROMISES:
                promise(run)
            if actions_matter and embodiment.action_dim:
                actions_change_the_future(run)
        if actions_matter and differentiable and embodiment.action_dim:
            gradients_reach_actions(run)
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class _Run:
    """One check: the model's verbs, watched, and what they answered about the first part of the clip."""

    model: WorldModel
    clip: Clip
    embodiment: Embodiment

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens of a latent, and numbers in each."""
        return self.model.part(self.embodiment.name).latent_shape

    @property
    def past(self) -> int:
        """Steps of the clip that are believed; the rest is the future."""
        return self.clip.steps - self.horizon

    @property
    def horizon(self) -> int:
        """Steps to predict: at least 2, for one alone cannot show a future that merely repeats the past."""
        return self.clip.steps // 2

    @cached_property
    def seen(self) -> Latent:
        """The whole clip, encoded."""
        return self.encode(self.clip)

    @property
    def truth(self) -> Latent:
        """What really came after the past, encoded."""
        return self.seen.between(self.past, self.clip.steps)

    @cached_property
    def belief(self) -> Belief:
        """What is held after the past."""
        return self.believe(None, self.past)

    @cached_property
    def actions(self) -> Float[Tensor, "batch horizon action"] | None:
        """What was done in the future."""
        return None if self.clip.actions is None else self.clip.actions[:, self.past - 1 :]

    @cached_property
    def future(self) -> Latent:
        """What the model imagines after the past."""
        return self.predict(self.belief, self.actions, self.horizon)

    def encode(self, clip: Clip) -> Latent:
        latent = self._ask("encode", Latent, lambda: self.model.encode(clip), clip)
        sound("encode", latent.values, (len(clip), clip.steps, *self.shape))
        return latent

    def believe(self, belief: Belief | None, stop: int) -> Belief:
        """Believe the clip up to step ``stop``: from its start, or the last step of the past alone."""
        start = 0 if belief is None else self.past - 1
        seen, actions = self.seen.between(start, stop), self.clip.actions
        if actions is not None:
            actions = actions[:, max(start - 1, 0) : stop - 1]
        # The embodiment is said once, when a belief begins.
        said = () if belief is not None else (self.embodiment.name,)
        return self._ask(
            "believe", Belief, lambda: self.model.believe(belief, seen, actions, *said), belief, seen, actions
        )

    def predict(self, belief: Belief, actions: Tensor | None, horizon: int) -> Latent:
        future = self._ask("predict", Latent, lambda: self.model.predict(belief, actions, horizon), belief, actions)
        if future.values.ndim == 4 and future.steps == belief.latents.steps + horizon:
            raise ContractError(f"predict for {horizon} steps gave {future.steps}: the past again and then the future")
        sound("predict", future.values, (len(belief), horizon, *self.shape))
        return future

    def energy(self, belief: Belief, actions: Tensor | None, future: Latent) -> Tensor:
        inputs = belief, actions, future
        energy = self._ask("energy", Tensor, lambda: self.model.energy(*inputs), *inputs)
        sound("energy", energy, (len(belief), future.steps))
        return energy

    def _ask(self, verb: str, kind: type[_T], question: Callable[[], Any], *inputs: Any) -> _T:
        """Ask, and see that neither inputs nor model were written to: the caller still owns what it handed over."""
        watched = (inputs, tuple(self.model.buffers()))
        before = [tensor.clone() for tensor in leaves(watched)]
        answer = question()
        if not all(unchanged(old, new) for old, new in zip(before, leaves(watched), strict=True)):
            raise ContractError(f"{verb} mutates its input or the model's buffers; it must make new tensors instead")
        if not isinstance(answer, kind):
            raise ContractError(f"{verb} returned a {type(answer).__name__}; a {kind.__name__} was wanted")
        return answer


def latents_are_well_formed(run: _Run) -> None:
    """One finite latent for each step, of the declared shape, at the clip's times; rows that differ look different."""
    latent, clip = run.seen, run.clip
    if latent.times.shape != clip.times.shape or not torch.equal(latent.times, clip.times):
        raise ContractError("encode must give each latent the time of its step; hand on the clip's times")
    if same(latent.values, latent.values[:1].expand_as(latent.values)):
        raise ContractError(
            "encode gave every row the same latents: the model has collapsed, or the clip's rows do not differ"
        )


def answers_repeat(run: _Run) -> None:
    """Asked again, also after being asked something else, a model answers the same: it hides no state and no dice."""
    backwards = torch.arange(len(run.clip)).flip(0)
    run.encode(run.clip.rows(backwards))
    run.predict(run.belief.rows(backwards), chosen(run.actions, backwards), run.horizon)
    pairs = {
        "encode": (run.encode(run.clip).values, run.seen.values),
        "predict": (run.predict(run.belief, run.actions, run.horizon).values, run.future.values),
        "energy": (run.energy(run.belief, run.actions, run.truth), run.energy(run.belief, run.actions, run.truth)),
    }
    for verb, (again, first) in pairs.items():
        if not same(again, first):
            raise ContractError(f"{verb} gave two answers to one question; it must be deterministic in evaluation mode")


def encoding_never_peeks(run: _Run) -> None:
    """A latent depends on its step and those before, never on what comes after; a model that does says so itself."""
    if not run.model.part(run.embodiment.name).causal:
        return
    last = run.clip.steps - 1
    other = {}
    for name, tensor in parts(run.clip):
        # An action leads to a step, so the last action belongs to the last step. The intrinsics have no steps.
        if name not in ("times", "intrinsics", "truth"):
            end = 255 - tensor[:, -1:] if tensor.dtype == torch.uint8 else tensor[:, -1:].roll(1, 0)
            other[name] = torch.cat([tensor[:, :-1], end], dim=1)
    changed = run.encode(replace(run.clip, **other))
    short = run.encode(run.clip.between(0, last))
    for latent in (changed, short):
        if not same(latent.values[:, :last], run.seen.values[:, :last]):
            raise ContractError("encode looks into the future: another last step changed the latents of earlier steps")


def rows_never_talk(run: _Run) -> None:
    """A row's answers do not depend on its neighbours: rows may be reordered, left out, or repeated by a planner.

    Then also all that a belief holds is in its declared fields, for nothing else is reordered with it.
    """
    order = torch.arange(len(run.clip))
    for rows in (order.flip(0), order[:1], order.repeat_interleave(2)):
        belief, actions = run.belief.rows(rows), chosen(run.actions, rows)
        truth = Latent(run.truth.values[rows], run.truth.times[rows])
        pairs = {
            "encode": (run.encode(run.clip.rows(rows)).values, run.seen.values[rows]),
            "predict": (run.predict(belief, actions, run.horizon).values, run.future.values[rows]),
            "energy": (run.energy(belief, actions, truth), run.energy(run.belief, run.actions, run.truth)[rows]),
        }
        for verb, (alone, together) in pairs.items():
            if not same(alone, together):
                raise ContractError(f"{verb} lets rows talk: a row's answer changed with the other rows of its batch")


def beliefs_go_on(run: _Run) -> None:
    """A belief ends at the last step seen, and believing in two pieces is believing in one."""
    belief, past = run.belief, run.seen.between(0, run.past)
    if belief.embodiment != run.embodiment.name:
        raise ContractError(f"believe was told of {run.embodiment.name!r} and holds {belief.embodiment!r}")
    if not torch.equal(belief.latents.times[:, -1], past.times[:, -1]):
        raise ContractError("believe must hold the steps seen last: its last time is not that of the last step seen")
    if belief.actions is not None and belief.actions.shape[1] != belief.latents.steps - 1:
        raise ContractError(
            f"believe holds {belief.latents.steps} latents and {belief.actions.shape[1]} actions between them; "
            "one action fewer than latents was wanted"
        )
    pieces = run.believe(run.believe(None, run.past - 1), run.past)
    if pieces.embodiment != belief.embodiment:
        raise ContractError(f"believe went on from {belief.embodiment!r} and holds {pieces.embodiment!r}")
    one, two = list(leaves(belief)), list(leaves(pieces))
    if len(one) != len(two) or not all(same(a, b) for a, b in zip(one, two, strict=True)):
        raise ContractError("believe in two pieces gave another belief than in one; what is held must be the same")


def futures_follow(run: _Run) -> None:
    """The future begins one step after the belief ends and goes on step by step."""
    held, step = run.belief.latents.times, run.embodiment.step_seconds
    wanted = held[:, -1:] + step * torch.arange(1, run.horizon + 1).to(held)
    times = run.future.times
    if times.shape != wanted.shape or (times - wanted).abs().max() > 0.01 * step + 1e-6 * wanted.abs().max():
        raise ContractError(f"predict must give the times that follow the belief's last, every {step:g} s")


def futures_are_not_the_past(run: _Run) -> None:
    """What was held is not imagined again. A still past may be: then nothing happened, twice."""
    held = run.belief.latents.values
    for start in range(held.shape[1] - run.horizon + 1):
        window = held[:, start : start + run.horizon]
        still = same(window, window[:, :1].expand_as(window))
        if not still and same(window, run.future.values):
            raise ContractError("predict repeats its past: the future is a copy of latents that the belief holds")


def longer_futures_agree(run: _Run) -> None:
    """A step of the future does not depend on how far one looks, nor on what is done after it."""
    for horizon in range(1, run.horizon):
        actions = None if run.actions is None else run.actions[:, :horizon]
        short = run.predict(run.belief, actions, horizon)
        if not same(short.values, run.future.values[:, :horizon]):
            raise ContractError(f"predict for {horizon} steps differs from the start of {run.horizon}; they must agree")


def energy_prefers_the_expected(run: _Run) -> None:
    """Energies are finite, one for each step, and lower for the model's own prediction than for other rows' futures."""
    own = run.energy(run.belief, run.actions, run.future)
    strange = Latent(run.future.values.roll(1, 0), run.future.times)
    other = run.energy(run.belief, run.actions, strange)
    if not own.mean() < other.mean():
        raise ContractError(
            f"energy must be lower for the model's own future ({own.mean():.4g}) than for others' ({other.mean():.4g})"
        )


def ways_are_well_formed(run: _Run) -> None:
    """Who says that it reaches answers with steps, none below 0, actions within the bounds, and odds from 0 to 1."""
    if (name := run.embodiment.name) not in run.model.reaches:
        return
    goal = run.seen.between(run.clip.steps - 1, run.clip.steps)
    far = run._ask("reach", Tensor, lambda: run.model.reach(run.seen, goal, name), run.seen, goal)
    sound("reach", far, tuple(run.clip.times.shape))
    if far.min() < 0:
        raise ContractError("reach gave fewer than no steps")
    proposed = run._ask("propose", Tensor, lambda: run.model.propose(run.belief, goal, run.horizon), run.belief, goal)
    sound("propose", proposed, (len(run.clip), run.horizon, run.embodiment.action_dim))
    low, high = (torch.tensor(bound).to(proposed) for bound in (run.embodiment.low, run.embodiment.high))
    if ((proposed < low) | (proposed > high)).any():
        raise ContractError("propose gave an action outside of the embodiment's bounds")
    if not same(run.model.reach(run.seen.between(0, 1), goal, name), far[:, :1]):
        raise ContractError("reach lets one step look at another; each is asked by itself")
    if name in run.model.judges:
        likely = run._ask("reachable", Tensor, lambda: run.model.reachable(run.seen, goal, name), run.seen, goal)
        sound("reachable", likely, tuple(run.clip.times.shape))
        if likely.min() < 0 or likely.max() > 1:
            raise ContractError("reachable gave what is no probability: below 0 or above 1")


def doubts_are_well_formed(run: _Run) -> None:
    """Who says how unsure it is gives each imagined step a number: none below 0, and none below the step before it."""
    if (name := run.embodiment.name) not in run.model.unsure:
        return
    assert run.actions is not None
    future, actions = run.future, run.actions
    unsure = run._ask("uncertainty", Tensor, lambda: run.model.uncertainty(future, actions, name), future, actions)
    sound("uncertainty", unsure, (len(run.clip), run.horizon))
    if unsure.min() < 0 or (unsure.diff(dim=1) < 0).any():
        raise ContractError("uncertainty fell along the path, or below none; what comes later is no surer")
    first = run.model.uncertainty(future.between(0, 1), actions[:, :1], name)
    if not same(first, unsure[:, :1]):
        raise ContractError("uncertainty of a step changed with what is imagined after it; it looks ahead")


def absence_is_explained(run: _Run) -> None:
    """A clip with nothing in it is refused in one sentence."""
    nothing = {name: None for name, _ in parts(run.clip) if name != "times"}
    try:
        run.encode(replace(run.clip, **nothing))
    except ContractError:
        raise
    except ValueError as error:
        if not str(error).strip() or "\n" in str(error).strip():
            raise ContractError(f"encode must say in one sentence what it needs, not {str(error)!r}") from error
        return
    except (AttributeError, TypeError, RuntimeError, LookupError, AssertionError) as error:
        raise ContractError(
            f"encode met a clip without observations with {type(error).__name__}; ValueError with a sentence was wanted"
        ) from error
    raise ContractError("encode perceived a clip without observations; it must raise ValueError and say what it needs")


def actions_change_the_future(run: _Run) -> None:
    """What is done matters: extreme actions and moderate ones lead to different futures."""
    assert run.actions is not None
    low, high = (torch.tensor(bound).to(run.actions) for bound in (run.embodiment.low, run.embodiment.high))
    # Three, for a model may be symmetric in its actions.
    futures = [
        run.predict(run.belief, action.expand_as(run.actions).clone(), run.horizon).values
        for action in (low, (low + high) / 2, high)
    ]
    if all(same(futures[0], future) for future in futures[1:]):
        raise ContractError("predict ignores its actions: the lowest, middle and highest actions lead to one future")


def gradients_reach_actions(run: _Run) -> None:
    """The future can be differentiated by the actions: planners that follow the gradient need it."""
    assert run.actions is not None
    actions = run.actions.detach().clone().requires_grad_()
    with torch.enable_grad():
        values = run.model.predict(run.belief, actions, run.horizon).values
        # Uneven weights: a plain sum is constant where the last layer is normalised.
        score = (values * torch.linspace(-1, 1, values.numel()).to(values).view_as(values)).sum()
    gradient = torch.autograd.grad(score, actions, allow_unused=True)[0] if score.requires_grad else None
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        raise ContractError(
            "predict gives actions no finite gradient; keep them in the graph or say differentiable=False"
        )


PROMISES: tuple[Callable[[_Run], None], ...] = (
    latents_are_well_formed,
    answers_repeat,
    encoding_never_peeks,
    rows_never_talk,
    beliefs_go_on,
    futures_are_not_the_past,
    futures_follow,
    longer_futures_agree,
    energy_prefers_the_expected,
    ways_are_well_formed,
    doubts_are_well_formed,
    absence_is_explained,
)


def _embodiment(model: WorldModel, clip: Clip) -> Embodiment:
    """The clip's embodiment, once the clip is known to fit the check."""
    if clip.embodiment not in model.embodiments:
        known = ", ".join(model.embodiments)
        raise ValueError(f"the clip is of {clip.embodiment!r} and the model knows {known}; check it with one of those")
    if len(clip) < 2 or clip.steps < 4:
        raise ValueError(f"the clip has {len(clip)} rows of {clip.steps} steps; the check needs at least 2 rows of 4")
    embodiment = model.embodiments[clip.embodiment]
    if embodiment.action_dim and clip.actions is None:
        raise ValueError(f"{clip.embodiment!r} has actions and the clip has none; give a clip with its actions")
    return embodiment
