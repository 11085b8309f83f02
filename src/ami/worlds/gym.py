"""Any Gymnasium environment with pixels as episodes, and the list of worlds that can be recorded by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, UInt8

from ami.data.episodes import Episode
from ami.types import Embodiment
from ami.worlds import (
    cups,
    films,
    first_person,
    iphyre,
    layouts,
    maze,
    maze_walks,
    memory_maze,
    rooms,
    rooms_env,
    staged,
    tabletop,
    task,
    violations,
)
from ami.worlds.pictures import fitted
from ami.worlds.task import refuse_few
from ami.worlds.tasks import TASKS

FPS = 30.0  # of an environment whose metadata do not say "render_fps"
PREFIX = "gym:"

# What is seen, an action space's embodiment, and randomness, to an action as the model knows it.
Policy = Callable[[np.ndarray, Embodiment, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Recording:
    """What was recorded in a world, ready for a store."""

    embodiment: Embodiment
    episodes: list[Episode]
    truth_names: tuple[str, ...] = ()


def random_policy(picture: np.ndarray, body: Embodiment, rng: np.random.Generator) -> np.ndarray:
    """Anywhere within the bounds, each step anew."""
    return rng.uniform(body.low, body.high)


def collect(
    env: str | gymnasium.Env,
    episodes: int,
    steps: int,
    seed: int,
    action_repeat: int = 1,
    *,
    size: int = 64,
    policy: Policy = random_policy,
) -> tuple[Embodiment, list[Episode]]:
    """Record episodes of at most ``steps`` model steps, each of ``action_repeat`` environment steps.

    Pictures come from the observation, from an image in a dictionary of observations, or from ``rgb_array``
    rendering, resized to ``size`` px square. An episode ends early where the environment ends it. Actions of a ``Box``
    are kept as they are, a ``Discrete`` action is one-hot. ``ValueError`` for an environment that cannot be made,
    shows no picture, or has other or unbounded actions.
    """
    refuse_few(episodes, steps)
    if action_repeat < 1:
        raise ValueError(f"an action was to be repeated {action_repeat} times; it is done once or more")
    made = make(env) if isinstance(env, str) else env
    try:
        name = made.spec.id if made.spec else type(made.unwrapped).__name__
        body = _embodiment(made, f"{PREFIX}{name}", action_repeat)
        recorded = [
            _episode(
                made, body, steps, (seed, number), action_repeat, size, policy, f"{body.name}/seed-{seed}/{number}"
            )
            for number in range(episodes)
        ]
    finally:
        if made is not env:
            made.close()
    return body, recorded


def make(name: str) -> gymnasium.Env:
    """Make an environment by its id, asking it to render if it does not show pictures by itself.

    ``ValueError`` names the near matches of an unknown id, or what is missing to make it.
    """
    rooms_env.register()
    try:
        env = gymnasium.make(name)
        if _image_key(env.observation_space) is None:
            env.close()
            env = gymnasium.make(name, render_mode="rgb_array")
    except (gymnasium.error.Error, ImportError) as error:
        near = difflib.get_close_matches(name, list(gymnasium.registry), 3)
        hint = f"; did you mean {' or '.join(near)}?" if near and name not in gymnasium.registry else ""
        raise ValueError(f"the environment {name!r} cannot be made: {error}{hint}") from error
    return env


def to_action(space: spaces.Space, action: Float[np.ndarray, "action"]) -> Any:
    """An action as the environment wants it: the number of the largest entry for ``Discrete``, or the box's shape."""
    if isinstance(space, spaces.Discrete):
        return space.start + int(np.argmax(action))
    if isinstance(space, spaces.Box):
        return np.asarray(action, space.dtype).reshape(space.shape)
    raise ValueError(_unknown_actions(space))


def _embodiment(env: gymnasium.Env, name: str, action_repeat: int) -> Embodiment:
    space = env.action_space
    if isinstance(space, spaces.Discrete):
        low, high = np.zeros(int(space.n)), np.ones(int(space.n))
    elif isinstance(space, spaces.Box):
        low, high = space.low.ravel().astype(float), space.high.ravel().astype(float)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(
                f"the actions of {name} are not bounded; wrap it in gymnasium.wrappers.RescaleAction first"
            )
    else:
        raise ValueError(_unknown_actions(space))
    seconds = action_repeat / float(env.metadata.get("render_fps") or FPS)
    return Embodiment(name, seconds, tuple(low.tolist()), tuple(high.tolist()))


def _unknown_actions(space: spaces.Space) -> str:
    return f"actions in a {type(space).__name__} space are not understood; wrap it as a Box or Discrete space"


def _episode(
    env: gymnasium.Env,
    body: Embodiment,
    steps: int,
    key: tuple[int, int],
    action_repeat: int,
    size: int,
    policy: Policy,
    source: str,
) -> Episode:
    rng = np.random.default_rng(key)
    discrete = isinstance(env.action_space, spaces.Discrete)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    pictures, actions, over = [_picture(env, observation, size)], [], False
    while len(pictures) < steps and not over:
        action = np.asarray(policy(pictures[-1], body, rng), np.float32)
        if discrete:
            action = np.eye(len(action), dtype=np.float32)[action.argmax()]
        for _ in range(action_repeat):
            observation, _, terminated, truncated, _ = env.step(to_action(env.action_space, action))
            over = terminated or truncated
            if over:
                break
        pictures.append(_picture(env, observation, size))
        actions.append(action)
    times = np.arange(len(pictures)) * body.step_seconds
    return Episode(times=times, video=np.stack(pictures), actions=np.stack(actions), source=source)


def _image_key(space: spaces.Space) -> str | None:
    """Where the observation's picture is: "" = it is the observation, ``None`` = nowhere."""

    def shows(part: spaces.Space) -> bool:
        return (
            isinstance(part, spaces.Box) and part.dtype == np.uint8 and len(part.shape) == 3 and part.shape[2] in (1, 3)
        )

    if shows(space):
        return ""
    if isinstance(space, spaces.Dict):
        return next((name for name, part in space.spaces.items() if shows(part)), None)
    return None


def _picture(env: gymnasium.Env, observation: Any, size: int) -> UInt8[np.ndarray, "size size 3"]:
    key = _image_key(env.observation_space)
    if key is None:
        try:
            shown = env.render()
        except gymnasium.error.Error as error:
            raise ValueError(f"{env} cannot draw itself: {error}") from error
    else:
        shown = observation[key] if key else observation
    if not isinstance(shown, np.ndarray) or shown.ndim != 3:
        raise ValueError(f"{env} shows no picture; make it with render_mode='rgb_array'")
    return fitted(shown, size)


def _rooms(family: str) -> Callable[[int, int, int], Recording]:
    def record_rooms(episodes: int, steps: int, seed: int) -> Recording:
        return Recording(rooms.EMBODIMENT, rooms.collect(family, episodes, steps, seed), rooms.TRUTH)

    return record_rooms


def _of(world: Any) -> Callable[[int, int, int], Recording]:
    """A world's own ``collect``, with what its episodes are."""
    return lambda episodes, steps, seed: Recording(world.EMBODIMENT, world.collect(episodes, steps, seed), world.TRUTH)


def _task(name: str) -> Callable[[int, int, int], Recording]:
    def record_task(episodes: int, steps: int, seed: int) -> Recording:
        opened = TASKS[name]()
        return Recording(opened.body(), task.collect(opened, episodes, steps, seed), opened.truth)

    return record_task


def _record_iphyre(episodes: int, steps: int, seed: int) -> Recording:
    return Recording(iphyre.BODY, layouts.collect(episodes, steps, seed))


def _record_maze(episodes: int, steps: int, seed: int) -> Recording:
    return Recording(maze.EMBODIMENT, maze_walks.collect(episodes, steps, seed), maze_walks.TRUTH)


# Name to how it is recorded, from (episodes, steps, seed). Any "gym:ID" is a world too.
WORLDS: Mapping[str, Callable[[int, int, int], Recording]] = {
    **{f"two-rooms/{family}": _rooms(family) for family in (*rooms.FAMILIES, rooms.SEALED, rooms.REVISITED)},
    "drawn-films": _of(films),
    "physics": _of(violations),
    maze.NAME: _record_maze,
    "cups": _of(cups),
    **{name: _task(name) for name in TASKS},
    first_person.NAME: _of(first_person),
    tabletop.NAME: _of(tabletop),
    staged.NAME: _of(staged),
    iphyre.NAME: _record_iphyre,
    memory_maze.NAME: _of(memory_maze),
}


def record(world: str, episodes: int, steps: int, seed: int) -> Recording:
    """Record experience in a world by its name, or ``gym:`` and a Gymnasium id.

    ``ValueError`` for an unknown name, with the near matches.
    """
    if world.startswith(PREFIX):
        return Recording(*collect(world.removeprefix(PREFIX), episodes, steps, seed))
    if world not in WORLDS:
        near = difflib.get_close_matches(world, WORLDS, 3, 0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(WORLDS)}, and gym:ID."
        raise ValueError(f"there is no world {world!r}; {hint}")
    return WORLDS[world](episodes, steps, seed)
