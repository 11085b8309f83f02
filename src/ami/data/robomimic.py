"""Demonstrations in HDF5 files, as robomimic lays them out, as episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ami.data.episode import Episode
from ami.data.recording import Recording, Wanted, needed, squares
from ami.types import Embodiment

SUFFIXES = (".hdf5", ".h5")
_IMAGE = "_image"  # how the names of cameras end
# What a policy of robomimic is told of its own body (Mandlekar et al. 2021, appendix D): metres, a quaternion, metres.
_BODY = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
_RATE = 20.0  # robosuite's control frequency, where a file does not say


def open_robomimic(path: Path, wanted: Wanted) -> Recording:
    """A file in robomimic's layout: ``data/demo_N`` with ``actions``, ``obs/...`` and ``states``, one for each frame.

    The action of a frame leads to the next, so the last one is dropped. Actions are what robosuite's controllers take,
    -1 to 1; where some lie beyond, the bounds are what was recorded. ``proprio`` is the gripper's place (metres), its
    quaternion and its fingers, as far as they are there; ``truth`` is the simulator's state. One camera is taken,
    ``NAME_image`` with 0 to 255, and there may be none. Steps follow ``env_args``, or are of 0.05 s.
    """
    h5py = needed("h5py", "an HDF5 file", "robots")
    try:
        with h5py.File(path, "r") as file:
            demos = sorted((name for name in file["data"] if name.startswith("demo_")), key=_number)
            said = json.loads(file["data"].attrs.get("env_args", "{}"))
            actions = [np.asarray(file["data"][name]["actions"]) for name in demos]
            state = file["data"][demos[0]].get("states")
            truth = tuple(f"state_{k}" for k in range(0 if state is None or state.ndim != 2 else state.shape[1]))
            camera = _camera([name for name in file["data"][demos[0]].get("obs", ())], wanted.camera)
            rate = float(said.get("env_kwargs", {}).get("control_freq") or _RATE)
    except (OSError, KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not an HDF5 file in robomimic's layout that can be read: {error}") from error
    if any(each.ndim != 2 or each.shape[1] != actions[0].shape[1] for each in actions):
        raise ValueError(f"{path}: not all demonstrations have {actions[0].shape[-1]} numbers in an action")
    low, high = (edge([edge(each, 0) for each in actions if len(each)], 0) for edge in (np.min, np.max))
    if (np.abs([low, high]) <= 1).all():
        low, high = -np.ones_like(low), np.ones_like(high)
    body = Embodiment(str(said.get("env_name", path.stem)), 1 / rate, tuple(low.tolist()), tuple(high.tolist()))

    def read(number: int) -> tuple[Episode, None]:
        try:
            with h5py.File(path, "r") as file:
                return _episode(
                    path, file["data"][demos[number]], demos[number], body, camera, bool(truth), wanted
                ), None
        except (OSError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: {demos[number]} cannot be read ({error})") from error

    return Recording(path, body, tuple(demos), read, truth)


def _episode(
    path: Path, demo: Any, name: str, body: Embodiment, camera: str | None, told: bool, wanted: Wanted
) -> Episode:
    actions = np.asarray(demo["actions"], np.float32)
    obs = demo.get("obs", {})
    felt = [np.asarray(obs[part]).reshape(len(actions), -1) for part in _BODY if part in obs]
    source = f"{path.name}/{name}"
    return Episode(
        times=np.arange(len(actions)) * body.step_seconds,
        video=None if camera is None else squares(np.asarray(obs[camera]), wanted.size, source),
        proprio=np.concatenate(felt, 1) if felt else None,
        actions=actions[:-1],
        truth=_state(demo) if told else None,
        source=source,
    )


def _state(demo: Any) -> Float[np.ndarray, "frames truth"]:
    return np.asarray(demo["states"], np.float32)


def _camera(names: list[str], wanted: str | None) -> str | None:
    known = sorted(name for name in names if name.endswith(_IMAGE))
    chosen = [name for name in known if wanted in (None, name, name.removesuffix(_IMAGE))]
    if wanted is not None and not chosen:
        raise ValueError(f"it has no camera {wanted!r}; there are {', '.join(known) or 'none'}")
    return chosen[0] if chosen else None


def _number(name: str) -> tuple[int, str]:
    """demo_10 comes after demo_9."""
    digits = name.removeprefix("demo_")
    return (int(digits) if digits.isdecimal() else -1, name)
