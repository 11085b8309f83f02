"""The joint-embedding predictive world model: it predicts what it would perceive, never pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ami.models.horizon import fitting, times_ahead
from ami.nn.encoders import StepEncoder
from ami.nn.predictors import ActionDoor, ResidualPredictor, Ways, mended
from ami.nn.spread import Spread
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

STATE, SCENE = 0, 1  # the tokens of a latent


class JEPAConfig(BaseModel):
    """What must be known to build a JEPA. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embodiments: dict[str, Embodiment]  # with action_mean and action_std, measured on the training data
    picture: int = Field(64, ge=16, multiple_of=16, description="px on a side")
    tubelet: int = Field(default=1, ge=1, description="frames in a step")
    widths: tuple[int, int, int] = Field((24, 48, 96), description="of the three layers from pixels to tokens")
    blocks: int = Field(0, ge=0, description="transformer blocks among the tokens of a step")
    dim: int = Field(16, ge=2, description="numbers in each of the two tokens of a latent")
    window: int = Field(1, ge=1, description="latents that a belief holds")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of the encoder while it trains; it always acts in fp32"
    )
    predictor_width: int = Field(128, ge=8)
    predictor_depth: int = Field(2, ge=0)
    lessons: int = Field(default=8, ge=0, description="mistakes of its own that a belief holds, to mend others")
    reaches: tuple[str, ...] = Field(default=(), description="embodiments for which it learns how far things are")
    judges: tuple[str, ...] = Field(default=(), description="those of them for which it learns whether any way leads")
    imitates: tuple[str, ...] = Field(default=(), description="those of them that do as they saw it done")
    settled: tuple[str, ...] = Field(default=(), description="those of them that are always in one place")
    landmarks: int = Field(default=256, ge=1, description="moments that it keeps of such a place")
    unsure: tuple[str, ...] = Field(default=(), description="embodiments for which it learns how far off it may be")
    reach_width: int = Field(default=256, ge=8)
    reach_depth: int = Field(default=3, ge=1)


# One dial. Each size doubles the widths of the one before it about every second step and adds blocks; baby has none,
# because attention among sixteen tokens costs two CPU cores more than it gives.
#               tokens' width, blocks, dim, predictor width, predictor depth
_SIZES = {
    "baby": (96, 0, 16, 128, 2),
    "tiny": (192, 4, 32, 384, 3),
    "small": (384, 12, 128, 768, 4),
    "base": (768, 12, 192, 1536, 6),
    "large": (1024, 24, 256, 2048, 8),
}


def sized(
    size: str,
    embodiments: Mapping[str, Embodiment],
    *,
    picture: int = 64,
    window: int = 1,
    precision: str = "fp32",
    reaches: tuple[str, ...] = (),
    judges: tuple[str, ...] = (),
    imitates: tuple[str, ...] = (),
    settled: tuple[str, ...] = (),
    unsure: tuple[str, ...] = (),
) -> JEPAConfig:
    """The settings of one size: ``baby``, ``tiny``, ``small``, ``base`` or ``large``."""
    if size not in _SIZES:
        raise ValueError(f"there is no size '{size}'; choose one of {', '.join(_SIZES)}")
    width, blocks, dim, predictor_width, predictor_depth = _SIZES[size]
    return JEPAConfig(
        embodiments=dict(embodiments),
        picture=picture,
        widths=(width // 4, width // 2, width),
        blocks=blocks,
        dim=dim,
        window=window,
        precision=precision,  # pyright: ignore[reportArgumentType] (checked by the settings)
        predictor_width=predictor_width,
        predictor_depth=predictor_depth,
        reaches=reaches,
        judges=judges,
        imitates=imitates,
        settled=settled,
        unsure=unsure,
        reach_width=max(256, predictor_width // 2),  # there are some for each embodiment: soon more than all the rest
    )


class JEPA(WorldModel):
    """Each step becomes two tokens: the *state*, which moves, and the *scene*, which stays while an episode lasts.

    The objective makes them so (:mod:`ami.objectives.prediction`); the model only promises that the state of the next
    step depends on the held states, the scene and the action, and that the scene it imagines is the one it holds. So
    the distance to a goal in the same place is a distance of states: the scenes cancel.

    A belief also carries what went otherwise than predicted: for each of the last few transitions the state, the
    action, and by how much the next state was missed. Near such a state and action the prediction is mended by it. So a
    wall that the model takes for a door is run into once, and not for the rest of the episode.
    """

    def __init__(self, config: JEPAConfig) -> None:
        super().__init__()
        self.config = config
        self.embodiments = config.embodiments
        self.latent_shape = (2, config.dim)
        self.frames, self.picture = config.tubelet, config.picture
        names = tuple(sorted(config.embodiments))
        self.encoder = StepEncoder(
            picture=config.picture,
            tubelet=config.tubelet,
            widths=config.widths,
            blocks=config.blocks,
            out=2 * config.dim,
            embodiments={name: config.embodiments[name] for name in names},
            precision=config.precision,
        )
        self.predictor = ResidualPredictor(
            history=config.window * config.dim,
            context=config.dim,
            width=config.predictor_width,
            depth=config.predictor_depth,
            state=config.dim,
        )
        self.doors = nn.ModuleDict({name: _door(config.embodiments[name], config.predictor_width) for name in names})
        self.reaches, self.judges = tuple(sorted(config.reaches)), tuple(sorted(config.judges))
        self.imitates, self.unsure = tuple(sorted(config.imitates)), tuple(sorted(config.unsure))
        for name in sorted({*self.reaches, *self.unsure}):
            if not self.known(name).action_dim:
                raise ValueError(f"'{name}' has no actions, so there is nothing it could reach or misjudge")
        for name in sorted({*self.judges, *self.imitates, *config.settled}):
            if name not in self.reaches:
                raise ValueError(
                    f"what ways there are for '{name}' is learned with how far they are; name it in `reaches`"
                )
        size = config.dim, config.reach_width, config.reach_depth
        self.ways = nn.ModuleDict(
            {
                name: Ways(
                    *size,
                    config.embodiments[name],
                    aim=config.dim * (2 if name in self.imitates else 1),
                    judges=name in self.judges,
                    landmarks=config.landmarks if name in config.settled else 0,
                )
                for name in self.reaches
            }
        )
        width = config.predictor_width // 2
        self.spreads = nn.ModuleDict(
            {name: Spread(config.dim, config.embodiments[name].action_dim, width) for name in self.unsure}
        )

    def encode(self, clip: Clip) -> Latent:
        """Perceive each step by itself. Needs video of the size that the model was built for."""
        self.known(clip.embodiment)
        if clip.latents is not None:
            return Latent(clip.latents, clip.times)
        if clip.video is None:
            raise ValueError("this model perceives video, and the clip has none; record one with a camera")
        if not clip.video.shape[0] * clip.video.shape[1]:
            raise ValueError("the clip is empty: it has no rows or no steps, so there is nothing to perceive")
        felt = None if clip.proprio is None else clip.proprio.flatten(0, 1)
        perceived = self.encoder(clip.video.flatten(0, 1), felt, clip.embodiment)
        return Latent(perceived.view(len(clip), clip.steps, 2, self.config.dim), clip.times)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """Hold the last ``window`` latents, the actions between them, and the last lessons."""
        name = embodiment if belief is None else belief.embodiment
        fitting(self.known(name), actions, seen.steps - (belief is None))
        values, times, done, old = seen.values, seen.times, actions, 0
        lessons = None if belief is None else belief.recurrent
        if belief is not None:
            old = belief.latents.steps
            values = torch.cat([belief.latents.values, values], 1)
            times = torch.cat([belief.latents.times, times], 1)
            if actions is not None and belief.actions is not None:
                done = torch.cat([belief.actions, actions], 1)
        if self.config.lessons:
            for step in range(max(old, 1), values.shape[1]):
                action = None if done is None else done[:, step - 1]
                lesson = self._lesson(name, values[:, max(step - self.config.window, 0) : step + 1], action)
                lessons = lesson if lessons is None else torch.cat([lessons, lesson], 1)[:, -self.config.lessons :]
        keep = min(self.config.window, values.shape[1])
        held = None if done is None else done[:, done.shape[1] - (keep - 1) :]
        return Belief(name, Latent(values[:, -keep:], times[:, -keep:]), held, lessons)

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """Imagine ``horizon`` steps; the scene stays."""
        self._check(self.known(belief.embodiment), actions, horizon)
        rollout = _Rollout(self, belief)
        return rollout.latent([rollout.step(None if actions is None else actions[:, step]) for step in range(horizon)])

    def reach(self, now: Latent, goal: Latent, embodiment: str) -> Float[Tensor, "batch time"]:
        """Steps at full effort, from states and the scene of ``now``; the goal's own scene is not looked at."""
        if embodiment not in self.reaches:
            return super().reach(now, goal, embodiment)
        return self.way(embodiment).steps(*self._asked(now, goal, embodiment))

    def reachable(self, now: Latent, goal: Latent, embodiment: str) -> Float[Tensor, "batch time"]:
        """From states and the scene of ``now``, as ``reach``."""
        if embodiment not in self.judges:
            return super().reachable(now, goal, embodiment)
        return self.way(embodiment).chance(*self._asked(now, goal, embodiment)).sigmoid()

    def landmarks(self, embodiment: str) -> Latent | None:
        """Those that it was told of when it learned ways there (:meth:`settle`)."""
        if embodiment not in self.config.settled:
            return None
        kept = self.way(embodiment).landmarks[:, None]
        return Latent(kept, kept.new_zeros(len(kept), 1))

    def settle(self, embodiment: str, seen: Float[Tensor, "landmarks tokens dim"]) -> None:
        """Keep these moments of the place where an embodiment always is."""
        self.way(embodiment).landmarks.copy_(seen)

    def propose(self, belief: Belief, goal: Latent, horizon: int) -> Float[Tensor, "batch horizon action"]:
        """What the head says at each step of the path that it imagines by doing so."""
        if belief.embodiment not in self.reaches:
            return super().propose(belief, goal, horizon)
        rollout, done, aim = _Rollout(self, belief), [], self.aim(goal.values[:, 0], belief.embodiment)
        for step in range(horizon):
            if step:
                rollout.step(done[-1])
            done.append(self.way(belief.embodiment).action(rollout.state, aim, rollout.scene))
        return torch.stack(done, 1)

    def aim(self, goal: Float[Tensor, "*batch tokens dim"], embodiment: str) -> Float[Tensor, "*batch numbers"]:
        """What ways to a goal are asked about: its state, and its scene too for who does as he saw it done.

        What nobody moved all through a clip is in the scene, and may have been moved until the goal is reached.
        """
        return goal.flatten(-2) if embodiment in self.imitates else goal[..., STATE, :]

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """Squared distance from what was imagined, mean over tokens and dim. A latent's own variance is 1."""
        imagined = self.predict(belief, actions, future.steps)
        return (future.values - imagined.values).square().mean((-1, -2))

    def uncertainty(
        self, imagined: Latent, actions: Float[Tensor, "batch horizon action"], embodiment: str
    ) -> Float[Tensor, "batch horizon"]:
        """Of the state. Each step adds to it, and is judged by itself: by where it ends and what was done."""
        if embodiment not in self.unsure:
            return super().uncertainty(imagined, actions, embodiment)
        steps = self.judged(imagined, actions, embodiment).unbind(1)  # all at once would not stay in cache
        return torch.stack([self.spread(embodiment)(step) for step in steps], 1).cumsum(1)

    def judged(
        self, reached: Latent, actions: Float[Tensor, "batch time action"], embodiment: str
    ) -> Float[Tensor, "batch time number"]:
        """All that the doubt about a step is judged by: the state reached, what was done, and the scene."""
        values = reached.values
        return torch.cat([values[:, :, STATE], self.door(embodiment).normal(actions), values[:, :, SCENE]], -1)

    def spread(self, embodiment: str) -> Spread:
        """How far off an embodiment's steps may be."""
        return cast(Spread, self.spreads[embodiment])

    def way(self, embodiment: str) -> Ways:
        """How far things are for an embodiment, and what to do first."""
        return cast(Ways, self.ways[embodiment])

    def _asked(self, now: Latent, goal: Latent, embodiment: str) -> tuple[Tensor, Tensor, Tensor]:
        """The states of ``now``, what is asked about the goal beside each, and the scenes."""
        states, aim = now.values[:, :, STATE], self.aim(goal.values, embodiment)
        return states, aim.expand(*states.shape[:2], -1), now.values[:, :, SCENE]

    @torch.no_grad()
    def _lesson(
        self, name: str, passed: Float[Tensor, "batch steps tokens dim"], action: Float[Tensor, "batch action"] | None
    ) -> Float[Tensor, "batch 1 lesson"]:
        """The state before the last step, what was done (in deviations), and what the prediction then missed."""
        rollout = _Rollout(self, Belief(name, Latent(passed[:, :-1], passed.new_zeros(passed.shape[:2])[:, :-1])))
        before = rollout.state
        missed = passed[:, -1, STATE] - rollout.step(action)
        normal = [] if action is None else [self.door(name).normal(action)]
        return torch.cat([before, *normal, missed], -1)[:, None]

    def door(self, embodiment: str) -> ActionDoor:
        """Where an embodiment's actions come in."""
        return cast(ActionDoor, self.doors[embodiment])

    @staticmethod
    def _check(body: Embodiment, actions: Tensor | None, horizon: int) -> None:
        if (actions is None) != (body.action_dim == 0):
            needs = f"{body.action_dim} numbers an action" if body.action_dim else "no actions"
            raise ValueError(f"'{body.name}' has {needs}; {'none' if actions is None else 'some'} were given")
        fitting(body, actions, horizon)


class _Rollout:
    """A path being imagined: the states that the next depends on, the scene, and the lessons that mend it."""

    def __init__(self, model: JEPA, belief: Belief) -> None:
        held, window = belief.latents.values, model.config.window
        self.model, self.belief, self.dim = model, belief, model.config.dim
        self.scene = held[:, -1, SCENE]
        # A belief younger than the window has been still until now: its oldest state stands in for what was before.
        states = held[:, :, STATE]
        if missing := window - states.shape[1]:
            states = torch.cat([states[:, :1].expand(-1, missing, -1), states], 1)
        self.history = states.flatten(1)
        self.context, self.door = model.predictor.context(self.scene), model.door(belief.embodiment)

    @property
    def state(self) -> Float[Tensor, "batch dim"]:
        """Where it is now."""
        return self.history[:, -self.dim :]

    def step(self, action: Float[Tensor, "batch action"] | None) -> Float[Tensor, "batch dim"]:
        """Go on by one step, and say where to."""
        before, lessons = self.state, self.belief.recurrent
        after = before + self.model.predictor(self.history, self.door(action, self.context))
        if lessons is not None:
            after = after + mended(lessons, before, None if action is None else self.door.normal(action))
        self.history = torch.cat([self.history[:, self.dim :], after], 1) if self.model.config.window > 1 else after
        return after

    def latent(self, passed: list[Float[Tensor, "batch dim"]]) -> Latent:
        """The states passed, as a future of the belief."""
        scene = self.scene[:, None].expand(-1, len(passed), -1)
        body = self.model.embodiments[self.belief.embodiment]
        times = times_ahead(self.belief.latents.times, body.step_seconds, len(passed))
        return Latent(torch.stack([torch.stack(passed, 1), scene], 2), times)


def _door(body: Embodiment, width: int) -> ActionDoor:
    """Statistics that are missing mean that actions come as they are."""
    mean = body.action_mean or (0.0,) * body.action_dim
    std = body.action_std or (1.0,) * body.action_dim
    return ActionDoor(mean, std, width)
