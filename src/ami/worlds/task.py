"""What a simulated task is: a world whose state is a value that goes in and comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ami.data import recording
from ami.data.episodes import Episode
from ami.types import Embodiment

SIZE = 64  # px on a side of a picture
REPEAT = 5  # environment steps in a model step, as LeWM's frameskip

State = Float[np.ndarray, "truth"]
Act = Callable[[State], Float[np.ndarray, "action"]]  # what somebody does, from the state that he is in


class Task(ABC):
    """A simulator behind four functions of its state: ``start``, ``step``, ``render`` and ``place``.

    The simulator's own memory is scratch paper: whatever is asked begins from the state that is given, so the same
    question has the same answer, whatever was asked before. That makes recorded states goals, and the simulator a
    model to plan with. A model step is one action, held for ``REPEAT`` environment steps. To build a task is to open
    its simulator; ``ValueError`` where it is not installed.
    """

    name: ClassVar[str]
    seconds: ClassVar[float]  # of one environment step
    low: ClassVar[tuple[float, ...]]
    high: ClassVar[tuple[float, ...]]
    success: ClassVar[str]  # when a state counts as the goal, in words

    @classmethod
    def body(cls) -> Embodiment:
        """The action space; it is known without a simulator."""
        return Embodiment(cls.name, REPEAT * cls.seconds, cls.low, cls.high)

    @property
    @abstractmethod
    def truth(self) -> tuple[str, ...]:
        """What the numbers of a state are called."""

    @abstractmethod
    def start(self, rng: np.random.Generator) -> State:
        """A state to begin an episode in."""

    @abstractmethod
    def step(self, state: State, action: Float[np.ndarray, "action"]) -> Float[np.ndarray, "repeat truth"]:
        """The states after each environment step of one model step."""

    @abstractmethod
    def render(self, state: State) -> UInt8[np.ndarray, "64 64 3"]:
        """What is seen in a state."""

    @abstractmethod
    def place(self, states: Float[np.ndarray, "... truth"]) -> Float[np.ndarray, "... parts axes"]:
        """What a goal asks for, in parts; each is in units of its tolerance, so that 1 apart is just near enough."""

    @abstractmethod
    def explorer(self, rng: np.random.Generator) -> Act:
        """Somebody who tries out what can be done: for one episode, whose experience is recorded."""

    @abstractmethod
    def script(self, goal: State) -> Act:
        """Somebody who knows the state and has a simple rule to reach ``goal``: a baseline."""

    def solved(
        self, states: Float[np.ndarray, "... truth"], goals: Float[np.ndarray, "... truth"]
    ) -> Bool[np.ndarray, "..."]:
        """Whether states are near enough to goals, from the simulator's states alone."""
        return (np.linalg.norm(self.place(states) - self.place(goals), axis=-1) <= 1.0).all(-1)

    def walk(
        self, state: State, act: Act, steps: int
    ) -> tuple[Float[np.ndarray, "steps+1 truth"], Float[np.ndarray, "steps action"]]:
        """The states at model steps when somebody acts, the first one included, and what he did."""
        states, actions = [state], []
        for _ in range(steps):
            actions.append(np.clip(act(states[-1]), self.low, self.high))
            states.append(self.step(states[-1], actions[-1])[-1])
        return np.stack(states), np.stack(actions)

    def episode(self, steps: int, key: Sequence[int], source: str = "") -> Episode:
        """An explored episode of ``steps`` model steps; all of it is drawn from ``key``."""
        rng = np.random.default_rng(tuple(key))
        states, actions = self.walk(self.start(rng), self.explorer(rng), steps - 1)
        return Episode(
            times=np.arange(steps) * self.body().step_seconds,
            video=np.stack([self.render(state) for state in states]),
            actions=actions.astype(np.float32),
            truth=states,
            source=source,
        )


def refuse_few(episodes: int, steps: int) -> None:
    """``ValueError`` where there would be nothing to record."""
    if episodes < 1 or steps < 2:
        raise ValueError(f"{episodes} episodes of {steps} steps were asked for; at least 1 of 2 steps can be recorded")


def collect(task: Task, episodes: int, steps: int, seed: int) -> list[Episode]:
    """Record explored episodes of ``steps`` model steps each."""
    refuse_few(episodes, steps)
    return [task.episode(steps, (seed, number), f"{task.name}/seed-{seed}/{number}") for number in range(episodes)]


def needed(module: str, world: str, extra: str = "worlds") -> Any:
    """A module of an extra; ``ValueError`` says how to get it where it is missing."""
    return recording.needed(module, f"the world '{world}'", extra)


def along(reach: Float[np.ndarray, "action"], noise: float, rng: np.random.Generator) -> Float[np.ndarray, "action"]:
    """An action with some noise on it, within [-1, 1]."""
    return np.clip(reach + noise * rng.standard_normal(len(reach)), -1.0, 1.0)
